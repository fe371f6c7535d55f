#!/bin/bash
# The scenario of logons.rs under systemd: systemd.sh NAME, with the package in $DEB. It boots a
# systemd of its own over the machine's files (what it changes is gone with the namespace), and
# there runs itself again as a service.
FILES=machine source "$(dirname "$0")/machine.sh"

# Boots, waits for the end, and ends as the scenario ended.
boot() {
  local here=$(dirname "$0") over=/run/vipool-over
  mount -t tmpfs tmpfs /run
  mkdir -p $over
  mount -t tmpfs tmpfs $over
  mkdir $over/{upper,work,root}
  mount -t overlay overlay -o lowerdir=/,upperdir=$over/upper,workdir=$over/work $over/root
  local root=$over/root
  mkdir $root/scenario
  cp "$DEB" $root/scenario/vipool.deb
  cp $here/machine.sh $here/systemd.sh $here/../../docs/events.md $root/scenario/
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
  # Control groups of its own: systemd ends everything in those that it takes for its own.
  local group=vipool-test-$$ tree
  for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -e $tree/cgroup.procs ] && mkdir $tree/$group && echo $$ > $tree/$group/cgroup.procs || true
  done 2> /dev/null
  systemd-nspawn --directory=$root --private-network --register=no --keep-unit --quiet --boot \
    --machine=vipool-test -- --unit=scenario.target < /dev/null > $over/console 2>&1 || true
  for tree in /sys/fs/cgroup/systemd /sys/fs/cgroup/unified /sys/fs/cgroup; do
    [ -e $tree/$group ] || continue
    echo $$ > $tree/cgroup.procs
    find $tree/$group -depth -type d -exec rmdir {} +
  done 2> /dev/null || true
  cat $root/scenario/output || cat $over/console
  assert_same "$(cat $root/scenario/status)" 0
}

count_sessions() { vipool session list --json | python3 -c 'import json,sys; print(len(json.load(sys.stdin)))'; }
count_assigned() { ip -4 -o address show dev v0 scope host | wc -l; }
# wait_until_same WANTED COMMAND...: waits for a command to print this.
wait_until_same() {
  local wanted=$1; shift
  for i in $(seq 600); do [ "$("$@")" = "$wanted" ] && return; sleep 0.1; done
  assert_same "$("$@")" "$wanted"
}
# logged EVENT TEXT: it is in the journal under the id of docs/events.md, and what is said.
assert_logged() {
  local id=$(sed -n "s/^| \`$1\` | \`\([0-9a-f]*\)\` |.*/\1/p" /scenario/events.md)
  journalctl --sync
  journalctl --no-pager --output=cat MESSAGE_ID=$id | grep -E "$2" > /dev/null || { journalctl --no-pager -n 40; fail "$1 ($id) is not logged: $2"; }
}
create_network() {
  ip netns add other
  ip link add v0 type veth peer name v1 netns other
  ip -n other link set v1 up; ip link set v0 up
  ip address add 10.77.0.1/24 dev v0
}
# hold USER: a logon by ssh that listens on the fixed port until it is ended.
start_listener() {
  ssh_to 127.0.0.1 $1 nc -nlk 4711 < /dev/null > /dev/null & 
}

# The package and its units, from the installation to the purge, with sessions open.
inside_units() {
  create_network
  dpkg -i /scenario/vipool.deb
  systemd-analyze verify vipool.service vipool-gc.service vipool-gc.timer
  assert_same "$(systemctl is-enabled vipool.service vipool-gc.timer | tr '\n' ' ')" "enabled enabled "
  assert_same "$(systemctl is-active vipool-gc.timer)" active
  # Without a farm.toml it is no failure.
  systemctl start vipool
  assert_same "$(systemctl is-active vipool || true)" inactive

  mkdir /etc/vipool
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
  assert_same "$(systemctl is-active vipool) $(count_assigned)" "active 10"
  systemctl stop vipool
  assert_same "$(systemctl is-active vipool || true) $(count_assigned)" "inactive 0"
  [ ! -e /run/vipool/map ] || fail "the map is left"
  systemctl start vipool

  # Two users on one port.
  printf '%s\n' "auth required pam_permit.so" "account required pam_permit.so" \
    "session required pam_loginuid.so" \
    "-session [success=ok ignore=ignore module_unknown=ignore default=bad] pam_vipool.so" > /etc/pam.d/sshd
  mkdir -p /run/sshd
  start_sshd 127.0.0.1
  start_listener alice; local alice=$!
  start_listener bob; local bob=$!
  count_listeners() { ss -Hltn 'sport = :4711' | wc -l; }
  wait_until_same 2 count_listeners
  assert_same "$(count_sessions)" 2

  # A farm.toml with errors changes nothing, a good one is taken over; both with sessions open.
  cp /etc/vipool/farm.toml /etc/vipool/good
  echo 'ranges = 7' >> /etc/vipool/farm.toml
  systemctl reload vipool && fail "a broken farm.toml is taken"
  assert_same "$(systemctl is-active vipool) $(count_assigned) $(count_sessions)" "active 10 2"
  # One of the new addresses is another host's.
  ip -n other address add 10.77.0.115/24 dev v1
  sed 's/109"/119"/' /etc/vipool/good > /etc/vipool/farm.toml
  systemctl reload vipool
  assert_same "$(systemctl is-active vipool) $(count_assigned) $(count_sessions)" "active 19 2"
  assert_logged conflict '10.77.0.115 is not given out'

  # The timer takes back what a logon left that was killed. (Here it comes every two seconds.)
  mkdir /etc/systemd/system/vipool-gc.timer.d
  printf '%s\n' '[Timer]' OnUnitActiveSec= OnUnitActiveSec=2 AccuracySec=1ms \
    > /etc/systemd/system/vipool-gc.timer.d/often.conf
  systemctl daemon-reload
  systemctl restart vipool-gc.timer
  systemctl start vipool-gc.service
  # The process that leads the session is sshd's, above the one that runs as the user.
  kill -9 $(vipool session list --json | python3 -c '
import json, sys
print(*(s["leader"] for s in json.load(sys.stdin) if s["user"] == "bob"))')
  pkill -9 -u bob -x nc || true
  wait_until_same 1 count_sessions
  wait $bob || true
  assert_logged assigned '^10.77.0.1[01][0-9] is leased to session .* of bob$'
  assert_logged released '^10.77.0.1[01][0-9] was given back by session .* of bob'

  # The other events.
  systemctl stop vipool-gc.timer
  for i in $(seq 18); do vipool session open $i --user carol; done > /dev/null
  # It gets a loopback address, and no other.
  vipool session open 19 --user carol
  vipool gc
  assert_logged low-water 'below its low-water mark'
  assert_logged exhausted '^No virtual IP address is available for this session, please contact your administrator.$'
  for i in $(seq 19); do vipool session close $i; done > /dev/null
  # Three entries each: V, L, and the end.
  for i in $(seq 400); do vipool session open $i --user carol; vipool session close $i; done > /dev/null
  vipool gc
  assert_logged gap '^[0-9]+ events were lost'
  setpriv --reuid 2002 --regid 2002 --clear-groups vipool run --session 7 -- /bin/true
  assert_logged not-rewritten '^/bin/true runs with the host.s addresses: '
  systemctl start vipool-gc.timer

  # An upgrade: a newer version of the same.
  assert_same "$(count_sessions)" 1
  dpkg-deb -R /scenario/vipool.deb /scenario/newer
  sed -i 's/^Version: .*/Version: 99.0/' /scenario/newer/DEBIAN/control
  dpkg-deb -b /scenario/newer /scenario/newer.deb > /dev/null
  dpkg -i /scenario/newer.deb
  assert_same "$(systemctl is-active vipool vipool-gc.timer | tr '\n' ' ')" "active active "
  assert_same "$(count_sessions) $(count_listeners)" "1 1"

  # Stopped with a session open: its address stays, for as long as it is open.
  systemctl stop vipool
  assert_same "$(count_assigned) $(count_sessions) $(count_listeners)" "1 1 1"
  systemctl start vipool
  assert_same "$(count_assigned) $(count_sessions)" "19 1"

  # Removed with a session open.
  dpkg -r vipool
  assert_same "$(count_assigned)" 0
  assert_same "$(systemctl list-unit-files --no-legend '*vipool*')" ""
  assert_same "$(systemctl list-units --no-legend --state=failed '*vipool*')" ""
  assert_same "$(ssh_to 127.0.0.1 alice echo in)" in
  pkill -u alice -x nc; wait $alice || true
  dpkg -P vipool
  [ ! -e /etc/vipool ] && [ ! -e /run/vipool ] && [ ! -e /var/lib/vipool ] || fail "files are left"
}

case $1 in
  inside_*) "$1" ;;
  *) boot "$1" ;;
esac
