# Debian systems in folders, for t/package and t/matrix, which read this file.
# Needs root and mmdebstrap, and $root, the folder of the source.
#
# What is mounted and started in such a system is in namespaces of its own: it
# is gone with the command that needed it, so that a folder can be removed at
# any time.

# host_suite: the codename of this machine's Debian

host_suite() {
    (. /etc/os-release && echo "${VERSION_CODENAME-}")
}


# debian_sources SUITE: lines of a sources.list for it, from those archives of
# this machine's apt that say that they are Debian's

debian_sources() {
    local host

    host=$(host_suite)

    apt-get indextargets 'Created-By: Packages' 'Origin: Debian' \
        --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        | sort -u \
        | while read -r type uri release component; do
            # sid has no updates of its own
            case $1:$release in
            "$host":*) ;;
            sid:"$host") release=sid ;;
            sid:*) continue ;;
            *) release=$1${release#"$host"} ;;
            esac

            echo "$type $uri $release $component"
        done
}


# make_root DIR SUITE [PACKAGE...]: a new system, ready to install more. That
# of a suite without releases may be older than it says that it may be.

make_root() {
    local dir=$1 suite=$2 packages="${*:3}"

    shift 2

    debian_sources "$suite" > "$dir.list"
    [ -s "$dir.list" ] || {
        echo "apt knows no archive of Debian's: run apt-get update" >&2
        return 1
    }

    apt-config dump --format '%F "%v";%n' Acquire \
        | grep -E '^Acquire::https?::' > "$dir.conf" || :
    echo 'Acquire::Languages "none";' >> "$dir.conf"
    echo 'APT::Install-Recommends "false";' >> "$dir.conf"
    [ "$suite" != sid ] \
        || echo 'Acquire::Check-Valid-Until "false";' >> "$dir.conf"

    # what is in the folder need not outlive a loss of power
    unshare --mount --pid --fork --kill-child --mount-proc \
        mmdebstrap --mode=root --format=directory --variant=apt --quiet \
        --skip=cleanup/apt/lists --dpkgopt=force-unsafe-io \
        --aptopt="$dir.conf" ${packages:+"--include=$packages"} \
        "$suite" "$dir" "$dir.list"

    cp -L /etc/resolv.conf /etc/hosts "$dir/etc/"
    printf '#!/bin/sh\nexit 101\n' > "$dir/usr/sbin/policy-rc.d"
    chmod 755 "$dir/usr/sbin/policy-rc.d"
}


# copy_root FROM TO

copy_root() {
    cp -a --reflink=auto "$1" "$2"
}


# copy_source DIR: what a clean checkout of this source has

copy_source() {
    local files=(git -c safe.directory="$root" ls-files -z
                 --cached --others --exclude-standard)

    mkdir -p "$1"

    if git -c safe.directory="$root" rev-parse > /dev/null 2>&1; then
        # those that git has, but the folder has not, are about to go
        "${files[@]}" | perl -0ne 'print if -e s/\0//r' \
            | tar -cf - --null -T - | tar -xf - -C "$1"
    else
        tar -cf - --exclude=./.git --exclude=./build --exclude=node_modules . \
            | tar -xf - -C "$1"
    fi
}


# in_root [--offline] DIR COMMAND...: offline it has a loopback of its own, and
# nothing else. Whatever it leaves running ends with it.

in_root() {
    local net=

    if [ "$1" = --offline ]; then
        net=--net
        shift
    fi

    env -i PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        HOME=/root LC_ALL=C.UTF-8 DEBIAN_FRONTEND=noninteractive \
        unshare --mount --pid --ipc $net --fork --kill-child \
        bash -euc '
            cd "$1"
            shift

            mount -t proc proc proc
            mount -t tmpfs -o mode=755 tmpfs dev
            mkdir dev/shm
            chmod 1777 dev/shm
            ln -s /proc/self/fd dev/fd
            ln -s /proc/self/fd/0 dev/stdin
            ln -s /proc/self/fd/1 dev/stdout
            ln -s /proc/self/fd/2 dev/stderr

            for node in null zero full random urandom tty; do
                touch dev/$node
                mount --bind /dev/$node dev/$node
            done

            # lo up
            [ -z "$0" ] || perl -e '\''
                my $lo = pack "a16 s x22", "lo", 1;
                socket(my $s, 2, 2, 0) or die "socket: $!\n";
                ioctl($s, 0x8914, $lo) or die "lo: $!\n"'\''

            exec chroot . "$@"
        ' "$net" "$@" < /dev/null
}


# in_root_install DIR PACKAGE...

in_root_install() {
    in_root "$1" apt-get -q -y install "${@:2}"
}


# give_back PATH...: to the user who has called sudo

give_back() {
    [ -z "${SUDO_UID-}" ] || chown -R "$SUDO_UID:${SUDO_GID-}" "$@"
}


# skip WHY: exit status 77 is that of what cannot be done on this machine

skip() {
    say "SKIPPED: $*" >&2
    exit 77
}


# need_root_tools INSTALL: what this file needs, installed if it is "yes"

need_root_tools() {
    [ "$(id -u)" = 0 ] || skip "run it as root, or by sudo"

    unshare --mount --pid --ipc --net --fork --mount-proc true 2> /dev/null \
        || skip "root may make no namespaces (unshare --mount --pid --net)"

    command -v mmdebstrap > /dev/null || install_package mmdebstrap "$1"
}


install_package() {
    [ "$2" = yes ] || die "$1 is missing; as root, run: apt-get install $1"

    say "install $1"
    apt-get -q update && DEBIAN_FRONTEND=noninteractive \
        apt-get -q -y --no-install-recommends install "$1"
}
