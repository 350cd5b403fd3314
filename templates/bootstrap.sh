#!/bin/sh
# Install the engine and start its units. The marker at the true end is all that dec2 trusts, besides the scheduler.
set -eu
home=/opt/dec2
wheels=$home/wheels
source='@wheel_source@'
mkdir -p "$wheels"
id dec2 >/dev/null 2>&1 || useradd --system --create-home --shell /usr/sbin/nologin dec2

fetch() {
  # A worker fetches what dec2 pushed to the scheduler's node, and checks each byte against its user-data.
  base=http://$source:@wheel_port@
  until curl -fsS --max-time 20 -o "$home/MANIFEST" "$base/MANIFEST" 2>/dev/null; do sleep 0.3; done
  echo "@manifest_sha256@  $home/MANIFEST" | sha256sum -c --quiet
  cd "$wheels"
  while read -r _digest name; do
    curl -fsS --retry 20 --retry-connrefused --retry-delay 1 --max-time 600 -o "$name" "$base/$name"
  done < "$home/MANIFEST"
  sha256sum -c --quiet "$home/MANIFEST"
}

install_engine() {
  # The image's Python may have no pip: dec2 brings it as a wheel, and pip runs from that.
  test -x "$home/venv/bin/python" || python3 -m venv --without-pip "$home/venv"
  pip="$home/venv/bin/python $(find "$wheels" -name 'pip-*.whl' | sort | tail -n 1)/pip"
  quiet="--quiet --disable-pip-version-check"
  $pip install $quiet @index_options@ --find-links "$wheels" @requirements@
  $pip install $quiet --no-index --no-deps "$wheels"/dec2-*.whl
}

if [ -z "$source" ]; then
  # The scheduler's node waits for dec2 to push them.
  echo "waiting for the wheels" > "$home/phase"
  until [ -e "$wheels/READY" ]; do sleep 0.2; done
  systemctl start dec2-wheels.service
fi
# Not again after a reboot: by then the scheduler's node may hold newer ones.
if [ ! -e "$home/installed" ]; then
  if [ -n "$source" ]; then
    echo "fetching the wheels" > "$home/phase"
    fetch
  fi
  echo "installing" > "$home/phase"
  install_engine
  touch "$home/installed"
fi
echo "starting" > "$home/phase"
systemctl start --no-block @engine_units@
