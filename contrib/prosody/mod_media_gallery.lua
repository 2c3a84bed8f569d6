-- Lets clients find the media gallery: adds the form of XEP-0128 that they look for to the disco#info of a host, and to the
-- disco#info of an account, which old iOS clients ask instead.
--
--   VirtualHost "example.org"
--       modules_enabled = { "media_gallery" } -- adds to the modules of all hosts
--       media_gallery_url = "https://gallery.example.org/api/"
--
-- For all hosts, both lines can stand above the first VirtualHost. A reload applies a new address.

local dataforms = require "util.dataforms";

local form = dataforms.new {
	{ name = "FORM_TYPE"; type = "hidden"; value = "urn:xabber:http:url" };
	{ name = "urn:xabber:http:url:mediagallery"; type = "text-single" };
};

local extension;

local function announce()
	local url = module:get_option_string("media_gallery_url");
	if not url then
		module:log("error", "media_gallery_url is not set: clients of %s will not find the gallery", module.host);
	elseif not url:match("^https?://.+/api/$") then
		module:log("error", "media_gallery_url must be like https://gallery.example.org/api/ and is %q", url);
		url = nil;
	end
	if extension then
		module:remove_item("extension", extension);
	end
	extension = url and form:form({ ["urn:xabber:http:url:mediagallery"] = url }, "result");
	if extension then
		module:add_item("extension", extension);
	end
end

module:hook("account-disco-info", function (event)
	if extension then
		event.reply:add_child(extension);
	end
end);

announce();
module:hook_global("config-reloaded", announce);
