#!/bin/bash
# Runs the function inside_SCENARIO of this file under systemd.
# Usage: DEB=PACKAGE systemd.sh SCENARIO.
# The test logons.rs starts the script. The script boots a new systemd on an overlay of the
# machine's files. The kernel removes the overlay when the mount namespace of the script ends.
# A service of this systemd runs the script again, and that run calls the function.
FILES=machine source "$(dirname "$0")/machine.sh"

# boot NAME: boots systemd, waits until the scenario ends, and checks its exit status.
boot() {
  local script_directory=$(dirname "$0") overlay=/run/vipool-overlay
  mount -t tmpfs tmpfs /run
  mkdir -p $overlay
  mount -t tmpfs tmpfs $overlay
  mkdir $overlay/{upper,work,root}
  mount -t overlay overlay -o lowerdir=/,upperdir=$overlay/upper,workdir=$overlay/work $overlay/root
  local root=$overlay/root
  mkdir $root/scenario
  cp "$DEB" $root/scenario/vipool.deb
  cp $script_directory/machine.sh $script_directory/systemd.sh $script_directory/../../docs/events.md $root/scenario/
  # In the image of a container, this file often prevents packages from starting services.
  rm -f $root/usr/sbin/policy-rc.d
  add_test_users $root/etc
  cat > $root/etc/systemd/system/scenario.target <<UNIT
[Unit]
Requires=basic.target
Wants=scenario.service
UNIT
  cat > $root/etc/systemd/system/scenario.service <<UNIT
[Unit]
After=basic.target
[Service]
Type=oneshot
TimeoutStartSec=infinity
Environment=PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin
ExecStart=/bin/bash /scenario/systemd.sh inside_$1
StandardOutput=file:/scenario/output
StandardError=inherit
ExecStopPost=/bin/sh -c 'echo \$EXIT_STATUS > /scenario/status; systemctl --no-block poweroff'
UNIT
  # Create new control groups, because the booted systemd kills all processes in the control groups
  # that it manages.
  local group=vipool-test-$$ tree
  for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -e $tree/cgroup.procs ] && mkdir $tree/$group && echo $$ > $tree/$group/cgroup.procs || true
  done 2> /dev/null
  systemd-nspawn --directory=$root --private-network --register=no --keep-unit --quiet --boot \
    --machine=vipool-test -- --unit=scenario.target < /dev/null > $overlay/console 2>&1 || true
  for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -e $tree/$group ] || continue
    echo $$ > $tree/cgroup.procs
    find $tree/$group -depth -type d -exec rmdir {} +
  done 2> /dev/null || true
  cat $root/scenario/output || cat $overlay/console
  assert_equal "$(cat $root/scenario/status)" 0
}

count_sessions() { vipool session list --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))'; }
count_assigned_addresses() { ip -4 -o address show dev v0 scope host | wc -l; }
# wait_for_output EXPECTED COMMAND...: waits until the command prints this text.
wait_for_output() {
  local expected=$1; shift
  for i in $(seq 600); do [ "$("$@")" = "$expected" ] && return; sleep 0.1; done
  assert_equal "$("$@")" "$expected"
}
# assert_logged EVENT PATTERN: fails if no journal entry of the event matches the pattern.
# docs/events.md lists the message id of each event.
assert_logged() {
  local id=$(sed -n "s/^| \`$1\` | \`\([0-9a-f]*\)\` |.*/\1/p" /scenario/events.md)
  journalctl --sync
  journalctl --no-pager --output=cat MESSAGE_ID=$id | has_match "$2" || { journalctl --no-pager -n 40; fail "$1 ($id) has no entry that matches: $2"; }
}
create_network() {
  ip netns add other
  ip link add v0 type veth peer name v1 netns other
  ip -n other link set v1 up; ip link set v0 up
  ip address add 10.77.0.1/24 dev v0
}
# run_gc_every SECONDS: restarts vipool-gc.service with this interval.
run_gc_every() {
  mkdir -p /etc/systemd/system/vipool-gc.service.d
  printf '%s\n' '[Service]' ExecStart= "ExecStart=/usr/bin/vipool gc --every $1" \
    > /etc/systemd/system/vipool-gc.service.d/interval.conf
  systemctl daemon-reload
  systemctl restart vipool-gc.service
}
# count_events_of_carol: prints how many `assigned` events of carol the journal of systemd contains.
# A session with a virtual IP and a loopback address has two of them.
count_events_of_carol() { journalctl --sync; journalctl --no-pager --output=cat VIPOOL_USER=carol VIPOOL_EVENT=assigned | wc -l; }
# start_listener USER: logs on by ssh and starts a program that listens on port 4711 until it is
# killed.
start_listener() {
  ssh_to 127.0.0.1 $1 nc -nlk 4711 < /dev/null > /dev/null & 
}

# Tests the package and its units from the installation to the purge, while sessions are open.
inside_units() {
  create_network
  dpkg -i /scenario/vipool.deb
  systemd-analyze verify vipool.service vipool-gc.service
  assert_equal "$(systemctl is-enabled vipool.service vipool-gc.service | tr '\n' ' ')" "enabled enabled "
  assert_equal "$(systemctl is-active vipool-gc.service)" active
  # The start succeeds without effect if farm.toml has no setting or does not exist.
  systemctl start vipool
  assert_equal "$(systemctl is-active vipool || true)" inactive
  rm /etc/vipool/farm.toml
  systemctl start vipool
  assert_equal "$(systemctl is-active vipool || true)" inactive

  cat > /etc/vipool/farm.toml <<FARM
[sessions]
cool-down = 0
low-water = 9
[[range]]
addresses = ["10.77.0.100-10.77.0.109"]
[[program]]
path = "$(readlink -f /usr/bin/nc)"
features = ["virtual-ip"]
FARM
  systemctl start vipool
  assert_equal "$(systemctl is-active vipool) $(count_assigned_addresses)" "active 10"
  systemctl stop vipool
  assert_equal "$(systemctl is-active vipool || true) $(count_assigned_addresses)" "inactive 0"
  [ ! -e /run/vipool/map ] || fail "the map still exists"
  systemctl start vipool

  # vipool-gc.service writes an event to the system log within a second. It does not wait for its
  # next maintenance, which is ten minutes later.
  run_gc_every 600
  vipool session open 90 --user carol > /dev/null
  wait_for_output 2 count_events_of_carol
  journalctl --no-pager --output=export VIPOOL_USER=carol | has_match "^VIPOOL_TIME=$(date -u +%Y)-" \
    || fail "the events of carol have no time"
  journalctl --no-pager --output=cat VIPOOL_ADMINISTRATOR=root | has_match 'ran vipool up' \
    || fail "vipool up has no administrator"
  vipool session close 90

  # Two users listen on the same port.
  printf '%s\n' "auth required pam_permit.so" "account required pam_permit.so" \
    "session required pam_loginuid.so" \
    "-session [success=ok ignore=ignore module_unknown=ignore default=bad] pam_vipool.so" > /etc/pam.d/sshd
  mkdir -p /run/sshd
  start_sshd 127.0.0.1
  start_listener alice; local alice=$!
  start_listener bob; local bob=$!
  count_listeners() { ss -Hltn 'sport = :4711' | wc -l; }
  wait_for_output 2 count_listeners
  assert_equal "$(count_sessions)" 2

  # While sessions are open, a reload rejects an invalid farm.toml and applies a valid farm.toml.
  cp /etc/vipool/farm.toml /etc/vipool/good
  echo 'ranges = 7' >> /etc/vipool/farm.toml
  systemctl reload vipool && fail "reload accepted an invalid farm.toml"
  assert_equal "$(systemctl is-active vipool) $(count_assigned_addresses) $(count_sessions)" "active 10 2"
  # Another host has one of the new addresses.
  ip -n other address add 10.77.0.115/24 dev v1
  sed 's/109"/119"/' /etc/vipool/good > /etc/vipool/farm.toml
  systemctl reload vipool
  assert_equal "$(systemctl is-active vipool) $(count_assigned_addresses) $(count_sessions)" "active 19 2"
  assert_logged conflict 'cannot lease 10.77.0.115: '

  # vipool-gc.service closes the session of a killed logon.
  run_gc_every 2
  # The session leader is the sshd process that called the PAM module.
  kill -9 $(vipool session list --json | python3 -c '
import json, sys
print(*(s["leader"] for s in json.load(sys.stdin) if s["user"] == "bob"))')
  pkill -9 -u bob -x nc || true
  wait_for_output 1 count_sessions
  wait $bob || true
  assert_logged assigned '^10.77.0.1[01][0-9] is leased to session .* of bob$'
  assert_logged released '^10.77.0.1[01][0-9] was released by session .* of bob'

  # Test the remaining events.
  systemctl stop vipool-gc.service
  for i in $(seq 18); do vipool session open $i --user carol; done > /dev/null
  # The virtual IPs are exhausted, so session 19 gets a loopback address only.
  vipool session open 19 --user carol
  vipool gc
  assert_logged low-water 'below its low-water mark'
  assert_logged exhausted '^No virtual IP address is available for this session, please contact your administrator.$'
  for i in $(seq 19); do vipool session close $i; done > /dev/null
  # Write more entries than the journal of the map holds (1024). Each session writes at least three
  # entries.
  for i in $(seq 400); do vipool session open $i --user carol; vipool session close $i; done > /dev/null
  vipool gc
  assert_logged gap '^lost [0-9]+ events before they reached the history'
  setpriv --reuid 2002 --regid 2002 --clear-groups vipool run --session 7 -- /bin/true
  assert_logged not-rewritten '^/bin/true runs with the host.s addresses: '
  systemctl start vipool-gc.service

  # Upgrade to a package with the same files and a higher version.
  assert_equal "$(count_sessions)" 1
  dpkg-deb -R /scenario/vipool.deb /scenario/newer
  sed -i 's/^Version: .*/Version: 99.0/' /scenario/newer/DEBIAN/control
  dpkg-deb -b /scenario/newer /scenario/newer.deb > /dev/null
  dpkg -i /scenario/newer.deb
  assert_equal "$(systemctl is-active vipool vipool-gc.service | tr '\n' ' ')" "active active "
  assert_equal "$(count_sessions) $(count_listeners)" "1 1"

  # After a stop, the address of an open session stays assigned.
  systemctl stop vipool
  assert_equal "$(count_assigned_addresses) $(count_sessions) $(count_listeners)" "1 1 1"
  systemctl start vipool
  assert_equal "$(count_assigned_addresses) $(count_sessions)" "19 1"

  # Remove the package while a session is open.
  dpkg -r vipool
  assert_equal "$(count_assigned_addresses)" 0
  assert_equal "$(systemctl list-unit-files --no-legend '*vipool*')" ""
  assert_equal "$(systemctl list-units --no-legend --state=failed '*vipool*')" ""
  assert_equal "$(ssh_to 127.0.0.1 alice echo in)" in
  pkill -u alice -x nc; wait $alice || true

  # A new installation enables the services again, except a service that the administrator disabled.
  dpkg -i /scenario/vipool.deb
  service_states() { systemctl is-enabled vipool.service vipool-gc.service | tr '\n' ' '; }
  assert_equal "$(service_states)" "enabled enabled "
  assert_equal "$(systemctl is-active vipool-gc.service)" active
  systemctl disable --quiet vipool.service
  dpkg -r vipool
  dpkg -i /scenario/vipool.deb
  assert_equal "$(service_states)" "disabled enabled "

  dpkg -P vipool
  # The scenario itself wrote the settings in vipool-gc.service.d.
  assert_equal "$(find /etc/systemd /var/lib/systemd -name '*vipool*' ! -path '*.service.d*')" ""
  [ ! -e /etc/vipool ] && [ ! -e /run/vipool ] && [ ! -e /var/lib/vipool ] || fail "the package left files"
}

case $1 in
  inside_*) "$1" ;;
  *) boot "$1" ;;
esac
