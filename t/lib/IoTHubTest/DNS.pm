package IoTHubTest::DNS;

# A name server for tests: UDP on 127.0.0.1, a process of its own, whose
# answers a test changes while it runs.
#
#     my $dns = IoTHubTest::DNS->start($t);
#
#     $dns->answer('hub.test', ['127.0.0.1', '127.0.0.2'], ttl => 1);
#     $dns->refuse('hub.test', 'SERVFAIL');
#     $dns->forget('hub.test');
#
# A name that it knows nothing of does not exist (NXDOMAIN).  Addresses of
# both families may be given.  refuse() takes NXDOMAIN, SERVFAIL, REFUSED or
# SILENT, which is no answer at all.  address() is what nginx's "resolver"
# needs, queries($name) counts the queries for addresses of IPv4.
#
# The answers stand in a file that is read anew for each query, a line a
# name: NAME CODE TTL ADDRESS...

use strict;
use warnings;

use Carp qw(croak);
use IO::Select;
use IO::Socket::INET;
use POSIX qw(WNOHANG);
use Socket qw(AF_INET AF_INET6 inet_pton);
use Time::HiRes qw(time);

my ($A, $AAAA, $IN) = (1, 28, 1);
my %CODE = (NOERROR => 0, SERVFAIL => 2, NXDOMAIN => 3, REFUSED => 5);


sub start {
    my ($class, $t) = @_;

    my $dir = $t->dir;
    my $n = ++$t->{name_servers};

    my $self = bless {
        t => $t, owner => $$, names => {},
        map { $_ => "$dir/dns-$n.$_" } qw(answers queries port log),
    }, $class;

    $self->_write;

    $self->{pid} = $t->_spawn($self->{log}, $^X, "-I$t->{root}/t/lib",
        '-MIoTHubTest::DNS', '-e', 'IoTHubTest::DNS::serve(@ARGV)',
        map { $self->{$_} } qw(answers queries port));

    $t->_until(20, sub {
        waitpid($self->{pid}, WNOHANG) == 0
            or croak 'the name server did not start: '
                     . $t->_slurp($self->{log});

        $t->_slurp($self->{port}) =~ /^(\d+)\n/
            and $self->{address} = "127.0.0.1:$1";

    }) or croak 'the name server is not ready after 20 seconds';

    return $self;
}


sub address { $_[0]{address} }


sub answer {
    my ($self, $name, $addresses, %o) = @_;

    $self->{names}{lc $name} = join ' ', 'NOERROR', $o{ttl} // 1, @$addresses;
    $self->_write;
}


sub refuse {
    my ($self, $name, $code) = @_;

    croak "no code $code" unless $code eq 'SILENT' || exists $CODE{$code};

    $self->{names}{lc $name} = "$code 0";
    $self->_write;
}


sub forget {
    my ($self, $name) = @_;

    delete $self->{names}{lc $name};
    $self->_write;
}


sub _write {
    my ($self) = @_;

    my $new = "$self->{answers}.new";

    open my $f, '>', $new or croak "$new: $!";
    print $f map { "$_ $self->{names}{$_}\n" } sort keys %{ $self->{names} };
    close $f or croak "$new: $!";

    rename $new, $self->{answers} or croak "$new: $!";
}


sub queries {
    my ($self, $name) = @_;

    return scalar grep { $_ eq lc $name }
        split /\n/, IoTHubTest->_slurp($self->{queries});
}


# wait_for(NAME, COUNT): until it was asked for so often, from now on

sub wait_for {
    my ($self, $name, $count, %o) = @_;

    my $before = $self->queries($name);

    return IoTHubTest->_until($o{timeout} // 30,
        sub { $self->queries($name) >= $before + $count }) // 0;
}


sub stop {
    my ($self) = @_;

    my $pid = delete $self->{pid} // return;

    kill TERM => $pid;
    waitpid $pid, 0;
}


sub DESTROY {
    my ($self) = @_;

    local ($@, $?, $!);

    $self->stop if $self->{owner} == $$;
}


# ---- the other process

sub serve {
    my ($answers, $queries, $port) = @_;

    my $socket = IO::Socket::INET->new(Proto => 'udp',
        LocalAddr => '127.0.0.1:0') or die "udp: $@\n";

    open my $log, '>>', $queries or die "$queries: $!\n";
    $log->autoflush;

    open my $f, '>', "$port.new" or die "$port: $!\n";
    print $f $socket->sockport, "\n";
    close $f;
    rename "$port.new", $port or die "$port: $!\n";

    my $parent = getppid;
    my $select = IO::Select->new($socket);

    while (getppid == $parent) {
        $select->can_read(1) or next;

        my $peer = $socket->recv(my $query, 512) // next;
        my $reply = _reply($query, $answers, $log) // next;

        $socket->send($reply, 0, $peer);
    }
}


sub _reply {
    my ($query, $answers, $log) = @_;

    return if length $query < 12;

    my ($id, $flags, $questions) = unpack 'n3', $query;
    my ($name, $end) = _name($query, 12);

    return if $flags & 0x8000 || $questions != 1 || !defined $name;

    my ($type, $class) = unpack 'n2', substr $query, $end, 4;

    return unless defined $class;

    print $log "$name\n" if $type == $A;

    my ($code, $ttl, @addresses) = _look_up($answers, $name);

    return if $code eq 'SILENT';

    # the name of an answer points to the question's
    my @records = map { pack 'n n n N n/a*', 0xC00C, $type, $IN, $ttl, $_ }
        map { inet_pton($type == $A ? AF_INET : AF_INET6, $_) }
        grep { $type == (/:/ ? $AAAA : $A) } @addresses;

    return pack('n6', $id, 0x8180 | $CODE{$code}, 1, scalar @records, 0, 0)
        . substr($query, 12, $end + 4 - 12) . join '', @records;
}


sub _name {
    my ($query, $at) = @_;

    my @labels;

    while ($at < length $query) {
        my $length = ord substr $query, $at++, 1;

        return lc(join '.', @labels), $at if $length == 0;
        return if $length > 63;

        push @labels, substr $query, $at, $length;
        $at += $length;
    }

    return;
}


sub _look_up {
    my ($answers, $wanted) = @_;

    open my $f, '<', $answers or die "$answers: $!\n";

    while (my $line = <$f>) {
        my ($name, @rest) = split ' ', $line;

        return @rest if $name eq $wanted;
    }

    return 'NXDOMAIN', 0;
}


1;
