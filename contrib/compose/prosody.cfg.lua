-- Prosody of compose.yaml. It is given its domain and the component's secret in its environment.
plugin_paths = { "/usr/local/lib/prosody/modules" }
certificates = "certs"
data_path = "/var/lib/prosody"
pidfile = "/tmp/prosody.pid"
log = { info = "*console" }
modules_enabled = {
	"blocklist", "bookmarks", "carbons", "csi_simple", "dialback", "disco", "limits", "mam", "pep", "ping", "private", "roster",
	"saslauth", "smacks", "tls", "vcard4", "vcard_legacy",
}
limits = { c2s = { rate = "10kb/s" }, s2sin = { rate = "30kb/s" } }
component_interfaces = { "*" } -- the port is not published: only the gallery shares this network

VirtualHost(ENV_DOMAIN)
modules_enabled = { "media_gallery" }
media_gallery_url = "https://gallery." .. ENV_DOMAIN .. "/api/"

Component("gallery." .. ENV_DOMAIN)
component_secret = ENV_COMPONENT_SECRET
