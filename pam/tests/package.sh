#!/bin/bash
# Runs the scenario of logons.rs for the Debian package. Usage: DEB=PACKAGE package.sh SCENARIO.
# dpkg changes only an overlay. The overlay disappears with the mount namespace of
# this script.
source "$(dirname "$0")/machine.sh"

umount /etc/pam.d /etc/passwd /etc/shadow /etc/group
mkdir /run/overlay
mount -t tmpfs tmpfs /run/overlay
for tree in usr etc var; do
  mkdir -p /run/overlay/$tree/{upper,work}
  mount -t overlay overlay -o lowerdir=/$tree,upperdir=/run/overlay/$tree/upper,workdir=/run/overlay/$tree/work /$tree
done
for file in passwd shadow group; do cp /run/db/$file /etc/$file; done
ip link set lo up
ip link add v0 type veth peer name v1
ip link set v1 up; ip link set v0 up
ip address add 10.77.0.1/24 dev v0

count_sessions() { vipool session list --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))'; }
count_assigned_addresses() { ip -4 -o address show dev v0 scope host | wc -l; }

# Installs and uses the package, then upgrades, removes and purges it. Sessions are open during the
# upgrade and the removal. The purge leaves no file.
install_upgrade_remove() {
  dpkg -i "$DEB"
  vipool --version
  for page in man1/vipool.1 man5/farm.toml.5 man8/vipool-up.8 man8/pam_vipool.8; do
    test -e /usr/share/man/$page.gz || fail "$page is missing"
  done
  vipool check && fail "the installed farm.toml has a setting"
  cat > /etc/vipool/farm.toml <<END
[[range]]
addresses = ["10.77.0.100-10.77.0.109"]
[[program]]
path = "$(readlink -f /usr/bin/nc)"
features = ["virtual-ip"]
END
  vipool check /etc/vipool/farm.toml
  vipool up --no-probe
  assert_equal "$(count_assigned_addresses)" 10
  printf '%s\n' "auth required pam_permit.so" "account required pam_permit.so" \
    "session required pam_loginuid.so" \
    "-session [success=ok ignore=ignore module_unknown=ignore default=bad] pam_vipool.so" > /etc/pam.d/sshd
  start_sshd 127.0.0.1

  # Two users listen on the same port.
  ssh_to 127.0.0.1 alice nc -nlk 4711 < /dev/null > /run/alice & local alice_pid=$!
  ssh_to 127.0.0.1 bob nc -nlk 4711 < /dev/null > /run/bob & local bob_pid=$!
  for i in $(seq 200); do [ "$(ss -Hltn 'sport = :4711' | wc -l)" = 2 ] && break; sleep 0.1; done
  ss -Hltn 'sport = :4711' | tee /run/ss
  assert_equal "$(grep -c '10\.77\.0\.1[0-9][0-9]:4711' /run/ss)" 2
  assert_equal "$(count_sessions)" 2

  # Upgrade to a package with the same files and a higher version.
  dpkg-deb -R "$DEB" /run/overlay/newer
  sed -i 's/^Version: .*/Version: 99.0/' /run/overlay/newer/DEBIAN/control
  dpkg-deb -b /run/overlay/newer /run/overlay/newer.deb > /dev/null
  dpkg -i /run/overlay/newer.deb
  assert_equal "$(count_sessions)" 2
  assert_equal "$(ss -Hltn 'sport = :4711')" "$(cat /run/ss)"
  pkill -u bob -x nc; wait $bob_pid || true
  for i in $(seq 100); do [ "$(count_sessions)" = 1 ] && break; sleep 0.1; done
  assert_equal "$(count_sessions)" 1
  vipool up --no-probe
  assert_equal "$(count_sessions)" 1

  # Remove the package while a session is open.
  dpkg -r vipool
  assert_equal "$(count_assigned_addresses)" 0
  pkill -u alice -x nc; wait $alice_pid || true
  [ ! -e /run/vipool ] || fail "/run/vipool still exists"
  [ -e /etc/vipool/farm.toml ] || fail "dpkg removed the configuration before the purge"
  # The PAM configuration still refers to the removed module. Logons must still succeed.
  assert_equal "$(ssh_to 127.0.0.1 alice echo in)" in
  dpkg -P vipool
  [ ! -e /etc/vipool ] || fail "/etc/vipool still exists"
  dpkg -L vipool 2> /dev/null && fail "dpkg still lists the package"
  find /usr /etc /var/lib /run/overlay/usr/upper -xdev -name '*vipool*' ! -path '*/newer*' -type f -newer /run/db/passwd > /run/left
  assert_equal "$(grep -v /var/lib/dpkg /run/left || true)" ""
}

"$1"
