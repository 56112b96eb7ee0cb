#!/bin/bash
# Uses a secret, and asks for the instance's metadata as those do who steal its credentials.
set -eu
echo "the token is $TOKEN"
printf %s "$TOKEN" | base64
printf %s "$TOKEN" | sha256sum >/opt/token.sha256
exec 3<>/dev/tcp/169.254.169.254/80
printf 'GET /latest/meta-data/iam/security-credentials/ HTTP/1.0\r\n\r\n' >&3
read -r answer <&3
echo "without a token: $answer"
