#!/usr/bin/env bash
# Has a picture made by the service, by curl alone: submit.sh CONTENT STYLE OUT.png
set -euo pipefail
server=${NST_SERVER:-http://127.0.0.1:8080}
ask() { curl --fail-with-body -sS ${NST_TOKEN:+-H "Authorization: Bearer $NST_TOKEN"} "$@"; }
job=$(ask -F "content=@\"$1\"" -F "style=@\"$2\"" -F 'options={"size":256,"iterations":20}' "$server/v1/jobs" |
  sed 's/.*"id":"\([a-z2-7]*\)".*/\1/')
ask -N "$server/v1/jobs/$job/events" |
  sed -nu 's/^data:.*"fraction":\([0-9.]*\).*/\1/p' # how far it is; it ends when the job is finished
ask -o "$3" "$server/v1/jobs/$job/result"
