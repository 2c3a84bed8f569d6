#!/bin/sh
# The image of nginx runs this before it starts: the site of contrib/nginx, with our names.
set -e
sed -e "s/gallery\.example\.org/gallery.$DOMAIN/g" -e "s/127\.0\.0\.1:8080/$GALLERY/g" /etc/nginx/media-gallery.conf >/etc/nginx/conf.d/media-gallery.conf
[ -e /proc/net/if_inet6 ] || sed -i '/listen \[::\]/d' /etc/nginx/conf.d/media-gallery.conf
