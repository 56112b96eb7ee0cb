#!/bin/sh
# Makes nginx listen on $PORT and keep quiet about its version.
set -eu
cat >/etc/nginx/conf.d/gild.conf <<CONF
server_tokens off;
CONF
sed -i "s/listen 80 /listen $PORT /; s/listen \[::\]:80 /listen [::]:$PORT /" /etc/nginx/sites-available/default
