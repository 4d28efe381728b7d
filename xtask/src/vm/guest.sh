#!/bin/busybox sh
# The first process of a kernel under test, and with its children the only one. It sets up a client, the balancer (this
# namespace) and two backends, has evenkeel balance real requests, and prints what every command said between marker
# lines on the serial console (console.rs reads them). It judges nothing: that is done outside (judge.rs).

export PATH=/opt:/bin
/bin/busybox --install -s /bin
# Busybox would take its own `ip`, which knows no namespaces.
ip() { /opt/ip "$@"; }

# section NAME COMMAND...: output, errors and exit status of the command.
section() {
    name=$1
    shift
    echo "@@ begin $name"
    "$@" >/tmp/output 2>/tmp/errors
    status=$?
    cat /tmp/output
    echo "@@ errors $name"
    cat /tmp/errors
    echo "@@ end $name $status"
}

mounts() {
    mount -t proc proc /proc
    mount -t sysfs sysfs /sys
    mount -t devtmpfs devtmpfs /dev
    mount -t tmpfs tmpfs /tmp
    mount -t tmpfs tmpfs /run
    mount -t bpf bpf /sys/fs/bpf
    ln -s /run /var/run
}

modules() {
    for module in /modules/*.ko; do
        insmod "$module" || return 1
    done
}

# inside NAMESPACE COMMAND...; `ip netns exec` would mount another /sys.
inside() {
    namespace=$1
    shift
    nsenter --net="/run/netns/$namespace" "$@"
}

# link NAME NAMESPACE SUBNET: NAME here is SUBNET.1, eth0 there is SUBNET.2.
link() {
    ip netns add "$2" &&
        ip link add "$1" type veth peer name eth0 netns "$2" &&
        ip address add "$3.1/24" dev "$1" &&
        ip link set "$1" up &&
        ip -n "$2" link set lo up &&
        ip -n "$2" link set eth0 up &&
        ip -n "$2" address add "$3.2/24" dev eth0 &&
        # Without checksum offload a wrong checksum is noticed; with GRO a veth takes what native XDP redirects to it.
        ethtool -K "$1" tx off &&
        inside "$2" ethtool -K eth0 tx off gro on
}

network() {
    echo 1 >/proc/sys/net/ipv4/ip_forward
    ip link set lo up
    ip address add 10.9.9.9/32 dev lo
    link client client 10.9.0 && link b1 b1 10.9.1 && link b2 b2 10.9.2 &&
        ip -n client route add default via 10.9.0.1
}

# until_ready PROCESS COMMAND...: the host ends all this if it takes too long.
until_ready() {
    process=$1
    shift
    until "$@" >/dev/null 2>&1; do
        kill -0 "$process" || return 1
        sleep 1
    done
}

backend() {
    inside "$1" evenkeel echo --listen "$2" --name "$1" >"/tmp/$1.out" 2>"/tmp/$1.log" &
    until_ready $! grep -q '^listening on' "/tmp/$1.log"
}

load() {
    # Long enough for an emulated processor on a busy machine.
    inside client evenkeel load http://10.9.9.9:50051/ -c 4 -m 5 -n 400 --timeout 120s --json
}

terminate() {
    kill -TERM "$1"
    wait "$1"
}

# The service in both modes, with evenkeel on one hook.
pass() {
    hook=$1
    sed "s/HOOK/$hook/" /etc/evenkeel.toml >"/tmp/$hook.toml"
    evenkeel run --config "/tmp/$hook.toml" >/tmp/daemon.log 2>&1 &
    daemon=$!
    section "$hook/start" until_ready $daemon evenkeel status
    for mode in l4 l7; do
        section "$hook/$mode/mode" evenkeel mode echo $mode
        section "$hook/$mode/load" load
        section "$hook/$mode/services" evenkeel services --json
        section "$hook/$mode/backends" evenkeel backends --json
    done
    section "$hook/status" evenkeel status --json
    [ "$hook" = tc ] && observe
    section "$hook/stop" terminate $daemon
    section "$hook/log" cat /tmp/daemon.log
}

# The same requests once more, seen from the client's interface.
observe() {
    # Not by `inside`: a function in the background is a shell of its own, which would get the signal instead.
    nsenter --net=/run/netns/client evenkeel observe eth0 --json >/tmp/report 2>/tmp/observe.log &
    observer=$!
    section observe/start until_ready $observer grep -q '^observing' /tmp/observe.log
    section observe/load load
    section observe/stop terminate $observer
    section observe/report cat /tmp/report
    section observe/log cat /tmp/observe.log
}

mounts
section kernel uname -r
section modules modules
section network network
section b1 backend b1 10.9.1.2:50051
section b2 backend b2 10.9.2.2:50051
section check evenkeel check --json
pass tc
pass xdp
section end true
poweroff -f
