#!/usr/bin/perl

# Senders that go away, at any moment, over HTTP/1.1 and HTTP/2: what the hub
# was asked for is seen through and noted, nobody else is held back, and
# nothing breaks.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Select;
use IO::Socket::INET;
use Socket qw(SOL_SOCKET SO_LINGER);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::HTTP qw(compose);

my $t = IoTHubTest->new;
my $hub = $t->hub;

# no creation waits for its turn
$t->nginx($hub->block('register missing rate=off;') . <<'CONF');

    iothub_secret off;

    log_format outcome '$iothub_device_id ${iothub_result}.';
    access_log %%TESTDIR%%/access.log outcome;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        listen 127.0.0.1:%%PORT_h2%% http2;

        location / { iothub_pass contoso; }

        location /soon {
            iothub_deadline 400ms;
            iothub_pass contoso;
        }
    }

CONF

my @workers = $t->worker_pids;
my $form = 'application/x-www-form-urlencoded';


sub body { return "event=temp&coreid=$_[0]&data=1" }

sub webhook {
    my ($device, $uri) = @_;

    return [POST => $uri // '/', body => body($device),
            headers => { 'Content-Type' => $form }];
}


# ---- the ways to come, and to go

sub http1 {
    my ($device, %o) = @_;

    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $t->port) or die "connect: $!\n";
    my $raw = compose(@{ webhook($device, $o{uri}) });

    $raw = substr $raw, 0, -5 if $o{part};
    print $s $raw;
    $s->flush;

    return $s;
}


sub frame {
    my ($type, $flags, $stream, $payload) = @_;

    return substr(pack('N', length $payload), 1)
        . pack('CCN', $type, $flags, $stream) . $payload;
}


# the frames of a webhook as a stream of HTTP/2

sub stream {
    my ($stream, $device, %o) = @_;

    my %headers = (':path' => $o{uri} // '/', ':authority' => 'localhost',
                   'content-type' => $form);

    # POST, http, and the others as literals
    my $head = join '', "\x83\x86",
        map { "\0" . chr(length) . $_ . chr(length $headers{$_})
              . $headers{$_} } sort keys %headers;

    return frame(1, 4, $stream, $head)
        . ($o{part} ? frame(0, 0, $stream, 'event=')
                    : frame(0, 1, $stream, body($device)));
}


sub http2 {
    my ($device, %o) = @_;

    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $t->port('h2'))
        or die "connect: $!\n";

    print $s "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", frame(4, 0, 0, ''),
        stream(1, $device, %o);
    $s->flush;

    return $s;
}


# the first byte of a stream's header block tells the status, if it is common

sub status {
    my ($s, $stream) = @_;

    my ($in, $end) = ('', time + 10);

    while (time < $end) {
        next unless IO::Select->new($s)->can_read(1);
        sysread $s, $in, 65536, length $in or last;

        while (length $in >= 9) {
            my ($high, $low, $type, undef, $id) = unpack 'CnCCN', $in;
            my $length = ($high << 16) + $low;

            last if length $in < 9 + $length;

            return $length && ord(substr $in, 9) == 0x89 ? 204 : 0
                if $type == 1 && $id == $stream;

            $in = substr $in, 9 + $length;
        }
    }

    return;
}


sub curl {
    my ($device, %o) = @_;

    return $t->_spawn($t->dir . '/curl.log', 'curl', '-s', '-o', '/dev/null',
        '--http2-prior-knowledge', '--noproxy', '*', '-H',
        "Content-Type: $form", '-d', body($device), '--',
        'http://127.0.0.1:' . $t->port('h2') . ($o{uri} // '/'));
}


my %come = ('HTTP/1.1, closed' => \&http1, 'HTTP/1.1, reset' => \&http1,
            'HTTP/2, closed' => \&http2, 'HTTP/2, stream reset' => \&http2);

my %go = (
    'HTTP/1.1, closed' => sub { close $_[0] },
    'HTTP/1.1, reset' => sub {
        setsockopt $_[0], SOL_SOCKET, SO_LINGER, pack('ii', 1, 0);
        close $_[0];
    },
    'HTTP/2, closed' => sub { close $_[0] },
    'HTTP/2, stream reset' => sub {
        print { $_[0] } frame(3, 0, 1, pack 'N', 8);
        $_[0]->flush;
    },
);

if ($t->has_http2) {
    $come{'HTTP/2, curl killed'} = \&curl;
    $go{'HTTP/2, curl killed'} = sub { kill KILL => $_[0]; waitpid $_[0], 0 };
}


# is_next(NAME, DEVICE): the next webhook of the device is delivered promptly

sub is_next {
    my ($name, $device) = @_;

    my ($answer) = $t->parallel([webhook($device)], 1);

    is($answer->{status}, 204, "$name: the next is delivered");
    cmp_ok($answer->{time}, '<', 1.5, "$name: promptly");
}


sub ends {
    my ($name, $device, $results) = @_;

    ok($t->wait_for_log(qr/^$device (?:$results)\.$/, file => 'access.log'),
       "$name: the log has its result: $results");
}


my $n = 0;

for my $way (sort keys %come) {
    my ($come, $go) = ($come{$way}, $go{$way});
    my $h2 = $way =~ m{HTTP/2};
    my $name;

    # while the body is read

    if ($way !~ /curl/) {
        $name = "$way, in the body";

        my $s = $come->('a-body', part => 1);

        sleep 0.05;
        $go->($s);
        is_next($name, 'a-body');
    }

    # during a send

    my $device = 'a-send' . ++$n;

    $name = "$way, during a send";
    $hub->add($device);
    $hub->faults([{ op => 'send', device => $device, delay => 400,
                    times => 1 }]);

    my $s = $come->($device);

    ok($hub->wait_for(send => 1, 10, device => $device), "$name: sent");
    $go->($s);
    ends($name, $device, 'delivered');
    is_next($name, $device);

    is(status_after($s, $device), 204, "$name: another stream is served")
        if $way =~ /stream/;

    # during a creation: its result is known to the next

    $device = 'a-create' . ++$n;
    $name = "$way, during a creation";
    $hub->faults([{ op => 'create', device => $device, delay => 400 }]);

    $s = $come->($device);
    ok($hub->wait_for(create => 1, 10, device => $device), "$name: asked for");
    $go->($s);
    ends($name, $device, $h2 ? 'timeout|delivered' : 'delivered');
    is_next($name, $device);
    is(scalar $hub->journal(device => $device, op => 'create'), 1,
       "$name: created once");

    # during one that fails, and is not tried again for nobody; over HTTP/1.1
    # nginx does not see that the sender is gone

    $device = 'a-fail' . ++$n;
    $name = "$way, during a creation that fails";
    $hub->faults([{ op => 'create', device => $device, delay => 400,
                    status => 500, times => 1 }]);

    $s = $come->($device);
    ok($hub->wait_for(create => 1, 10, device => $device), "$name: asked for");
    $go->($s);
    ends($name, $device, $h2 ? '\w+' : 'delivered');
    is_next($name, $device);

    # during the waits of a young identity

    $device = 'a-settle' . ++$n;
    $name = "$way, while it settles";
    $hub->faults([]);
    $hub->settings({ settle => 400 });

    $s = $come->($device);
    ok($hub->wait_for(send => 2, 10, device => $device), "$name: sent again");
    $go->($s);
    ends($name, $device, $h2 ? '\w+' : 'delivered');
    $hub->settings({ settle => 0 });
    is_next($name, $device);
    is(scalar $hub->journal(device => $device, op => 'create'), 1,
       "$name: created once");

    # while another creates it

    $device = 'a-wait' . ++$n;
    $name = "$way, while another creates it";
    $hub->faults([{ op => 'create', device => $device, delay => 400 },
                  { op => 'send', device => $device, times => 2,
                    error => 'DeviceNotFound' }]);

    my $creator = http1($device);

    ok($hub->wait_for(create => 1, 10, device => $device),
       "$name: the other does");
    $s = $come->($device);
    ok($hub->wait_for(send => 2, 10, device => $device), "$name: it waits");
    $go->($s);

    my $got = IO::Select->new($creator)->can_read(5) ? <$creator> : '';

    like($got // '', qr/ 204 /, "$name: the other is delivered");
    is_next($name, $device);

    # after the deadline's answer, while the call runs on

    $device = 'a-late' . ++$n;
    $name = "$way, after the deadline";
    $hub->add($device);
    $hub->faults([{ op => 'send', device => $device, delay => 800,
                    times => 1 }]);

    $s = $come->($device, uri => '/soon');
    ok($t->wait_for_log(
        qr/ not delivered,.* "$device", step: send, result: timeout/),
       "$name: told");
    $go->($s);
    ends($name, $device, 'timeout');
    is_next($name, $device);
    $hub->faults([]);
}


# a second stream on a connection whose first was reset

sub status_after {
    my ($s, $device) = @_;

    print $s stream(3, $device);
    $s->flush;

    return status($s, 3);
}


# ---- at any moment

$hub->faults([
    { op => 'send', device_re => '^r', probability => 0.1, status => 500 },
    { op => 'send', device_re => '^r', probability => 0.1, close => 'before' },
    { op => 'create', device_re => '^r', probability => 0.3, status => 500,
      accept => 1 },
    { op => 'any', device_re => '^r', probability => 0.5, delay => 40 },
]);
$hub->settings({ settle => 100 });

my @ways = grep { !/curl/ } sort keys %come;
my @open;

for my $i (1 .. 300) {
    my $way = $ways[$i % @ways];

    push @open, [$way, $come{$way}->('r' . $i % 25, part => $i % 10 == 0)];
    sleep rand 0.01;

    next if @open <= 5;

    my $gone = splice @open, int rand @open, 1;

    $go{ $gone->[0] }->($gone->[1]);
}

$go{ $_->[0] }->($_->[1]) for @open;
@open = ();

$hub->faults([]);
$hub->settings({ settle => 0 });

my @answers = $t->parallel([map { webhook("r$_") } 0 .. 24], 5);

is((grep { $_->{status} == 204 } @answers), 25,
   'at any moment: the next of each device is delivered');
is((grep { $_->{time} > 5 } @answers), 0, 'at any moment: and soon');

my %puts;

$puts{ $_->{device} }++ for grep { $_->{status} == 200 }
    $hub->journal(op => 'create');

is((grep { $_ > 1 } values %puts), 0, 'at any moment: none created twice');
is_deeply([$t->worker_pids], \@workers, 'the workers are the same');
is(scalar $t->log_lines(qr/\[(?:alert|crit|emerg)\]/), 0, 'no alert');

$t->done;
