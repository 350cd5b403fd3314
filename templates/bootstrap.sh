#!/bin/sh
# Install the engine and start its units. The marker at the true end is all that dec2 trusts, besides the scheduler.
set -eu
home=/opt/dec2
wheels=$home/wheels
source='@wheel_source@'
mkdir -p "$wheels"
id dec2 >/dev/null 2>&1 || useradd --system --create-home --shell /usr/sbin/nologin dec2

if [ -n "$source" ]; then
  # A worker fetches what dec2 pushed to the scheduler's node, and checks each byte against its user-data.
  base=http://$source:@wheel_port@
  until curl -fsS --max-time 20 -o "$home/MANIFEST" "$base/MANIFEST" 2>/dev/null; do sleep 0.3; done
  echo "@manifest_sha256@  $home/MANIFEST" | sha256sum -c --quiet
  cd "$wheels"
  while read -r _digest name; do
    curl -fsS --retry 20 --retry-connrefused --retry-delay 1 --max-time 600 -o "$name" "$base/$name"
  done < "$home/MANIFEST"
  sha256sum -c --quiet "$home/MANIFEST"
else
  # The scheduler's node waits for dec2 to push them.
  until [ -e "$wheels/READY" ]; do sleep 0.2; done
  systemctl start dec2-wheels.service
fi

echo "installing" > "$home/phase"
test -x "$home/venv/bin/python" || python3 -m venv "$home/venv"
"$home/venv/bin/pip" install --quiet --disable-pip-version-check @index_options@ --find-links "$wheels" @requirements@
"$home/venv/bin/pip" install --quiet --disable-pip-version-check --no-index --no-deps "$wheels"/dec2-*.whl
touch "$home/installed"
echo "starting" > "$home/phase"
systemctl start --no-block @engine_units@
