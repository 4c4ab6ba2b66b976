#!/usr/bin/perl

# The gates of a hub: what a hub that says "not now" holds back, of which
# calls, in all workers; how long for, and that one call finds out whether it
# is over; and the rate of creations.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::Clock;
use IoTHubTest::HTTP qw(compose converse);

# what a hub may answer sooner than it was asked, by the clocks of both
my $EARLY = 0.05;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

# Each gate that is closed is another hub's; a device's id starts with the
# name of its hub.

my %more = (
    herd => '', plain => '', date => '', again => '', long => '', dead => '',
    silent => 'proxy_read_timeout 1s;',
    missing => 'register missing rate=off;',
    first => 'register first rate=off;',
    disabled => '',
    bucket => 'register missing rate=20r/s burst=5;',
);


sub conf {
    return join("\n", map {
        $hub->block("zone 1m; $more{$_}") =~ s/contoso/$_/r
    } sort keys %more) . <<'CONF';

    iothub_secret off;

    log_format told '$iothub_device_id $iothub_result $iothub_identity $pid';
    access_log %%TESTDIR%%/access.log told;

    server {
        # shared out by the kernel: both workers get their part
        listen 127.0.0.1:%%PORT_8080%% reuseport;

        location ~ ^/(?<name>[a-z]+)$ { iothub_pass $name; }
        location = /pid { return 200 $pid; }
    }

CONF
}


sub webhook {
    my ($device) = @_;

    my ($name) = $device =~ /^([a-z]+)/;

    return compose(POST => "/$name", keepalive => 1,
        body => "event=temp&coreid=$device&data=1", headers =>
        { 'Content-Type' => 'application/x-www-form-urlencoded' });
}


# begin(DEVICES): a webhook of each, whose answer is not waited for; ended()
# waits for them

sub begin {
    my (@devices) = @_;

    return map {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                      PeerPort => $t->port) or die "$@\n";
        print {$s} webhook($_);
        $s->flush;
        +{ s => $s, since => time };
    } @devices;
}


sub ended {
    my (@begun) = @_;

    return map {
        my $answer = converse('', socket => $_->{s});

        +{ %$answer, time => $answer->{at} - $_->{since} };
    } @begun;
}


sub sends { return ended(begin(@_)) }


sub word {
    my ($answer) = @_;

    return 'delivered' if $answer->{status} == 204;

    return eval { decode_json($answer->{body})->{code} }
        // "status $answer->{status}";
}


# all(WORD, NAME, ANSWERS)

sub all {
    my ($word, $name, @answers) = @_;

    my %words;

    $words{ word($_) }++ for @answers;

    is_deeply(\%words, { $word => scalar @answers },
              "$name: " . @answers . " times $word");
}


# calls(NAME, OP): of that hub's devices, in their order

sub calls {
    my ($name, $op) = @_;

    return $hub->journal(brief => 1, defined $op ? (op => $op) : (),
                         device => qr/^$name\d/);
}


sub devices { my ($name, $count) = @_; return map { "$name$_" } 1 .. $count }

sub max {
    my $most = 0;

    $most = $_ > $most ? $_ : $most for @_;

    return $most;
}

$t->nginx(conf());


# ---- throttled messages: each gate of another hub, all at the same time

# name, webhooks that wait, what the first calls are answered by, least
# seconds between those; "slow" is the probe, which takes its time

my @throttles = (
    { name => 'herd', count => 100, least => 2, slow => 1,
      faults => [{ status => 429, retry_after => 2, times => 1 },
                 { delay => 800, times => 1 }],
      for => '2\.000' },
    { name => 'plain', count => 20, least => 0.5, refusals => 2,
      faults => [{ status => 429, times => 2 }],
      for => '(?:0\.[5-9]\d\d|1\.000)' },
    { name => 'date', count => 20, least => 1.9,
      faults => [{ status => 429, retry_after => 'date+3', times => 1 }],
      for => '[23]\.000' },
    { name => 'again', count => 20, least => 1, refusals => 3,
      faults => [{ status => 429, retry_after => 1, times => 3 }],
      for => '1\.000' },
    { name => 'silent', count => 20, least => 1, refusals => 2,
      faults => [{ status => 429, retry_after => 1, times => 1 },
                 { hang => 1, times => 1 }],
      for => '1\.000' },
);

$hub->add(map { devices($_->{name}, $_->{count} + 1) } @throttles);

$hub->faults([map {
    my $gate = $_;
    map { { op => 'send', device_re => "^$gate->{name}\\d", %$_ } }
        @{ $gate->{faults} };
} @throttles]);

# the first is refused, and then the others come

$_->{begun} = [begin("$_->{name}1")] for @throttles;

for my $gate (@throttles) {
    ok($t->wait_for_log(join ', ', 'iothub gate closed',
           qq(hub: "$gate->{name}"), 'gate: send', 'result: throttled',
           "for: $gate->{for} s"), "$gate->{name}: closed");
}

for my $gate (@throttles) {
    my @devices = devices($gate->{name}, $gate->{count} + 1);

    push @{ $gate->{begun} }, begin(@devices[1 .. $#devices]);
}

for my $gate (@throttles) {
    my ($name, $count) = @$gate{qw(name count)};
    my @answers = ended(@{ $gate->{begun} });

    all('delivered', $name, @answers);

    my @calls = calls($name);
    my $refusals = $gate->{refusals} // 1;

    is(scalar @calls, $count + 1 + $refusals,
       "$name: no more calls than webhooks and refusals");
    is((grep { $_->{op} ne 'send' } @calls), 0, "$name: all of them messages");

    cmp_ok($calls[$_]{time} - $calls[$_ - 1]{time}, '>=',
           $gate->{least} - $EARLY, "$name: held back, $_") for 1 .. $refusals;

    is(scalar $t->log_lines(qr/gate closed, hub: "$name"/), 1,
       "$name: closing is said once");
    is(scalar $t->log_lines(qr/gate opened, hub: "$name", gate: send/), 1,
       "$name: and so is opening");
}

my @probed = calls('herd');

cmp_ok($probed[2]{time} - $probed[1]{time}, '>=', 0.8 - $EARLY,
       'herd: while one call finds out, there is no other');

$t->wait_for_log(qr/^herd/, count => 101, file => 'access.log');

my %workers = map { (split)[3] => 1 } $t->log_lines(qr/^herd/, 'access.log');

is(keys %workers, 2, 'herd: in both workers');


# ---- a gate that opens after the deadline

my @devices = devices(long => 21);

$hub->add(@devices);
$hub->faults([{ op => 'send', device_re => '^long', status => 429,
                retry_after => 60, times => 1 }]);

my ($first) = sends($devices[0]);

all('throttled', 'long', $first);
is($first->{headers}{'retry-after'}, 60, 'long: who was refused is told when');

my @answers = sends(@devices);

all('throttled', 'long', @answers);
is(max(map { $_->{status} } @answers), 503, 'long: 503');
cmp_ok(max(map { $_->{time} } @answers), '<', 3, 'long: at once');
is((grep { ($_->{headers}{'retry-after'} // 0) !~ /^(?:[45]\d|60)$/ }
    @answers), 0, 'long: with the time at which it opens');
is(scalar calls('long'), 1, 'long: without a call');

ok($t->reload(undef, wait_old => 1), 'long: reloaded');
all('throttled', 'long, after a reload', sends(@devices[0 .. 3]));
is(scalar calls('long'), 1, 'long: without a call');


# ---- a throttled registry, in "missing" and in "first"

my (%begun, %held);

for my $name (qw(missing first)) {
    $hub->add(devices($name, 20));
}

$hub->faults([map {
    ({ op => 'create', device_re => "^${_}1\\d\\d", status => 429,
       retry_after => 3, times => 1 },
     { op => 'create', device_re => "^${_}1\\d\\d", delay => 800,
       times => 1 })
} qw(missing first)]);

$begun{$_} = [begin("${_}100")] for qw(missing first);

for my $name (qw(missing first)) {
    ok($t->wait_for_log(qr/gate closed, hub: "$name", gate: registry, (?x:
                        )result: creation_limited, for: [3-5]\./),
       "$name: the registry's gate is closed");
}

$held{$_} = [begin(devices($_, 20))] for qw(missing first);

for my $name (qw(missing first)) {
    @answers = ended(@{ $held{$name} });

    all('delivered', "$name, devices that exist", @answers);
    cmp_ok(max(map { $_->{time} } @answers), '<', 2.5,
           "$name, devices that exist: not held back");

    push @{ $begun{$name} }, begin(map { "$name$_" } 101 .. 120);
}

for my $name (qw(missing first)) {
    all('delivered', "$name, missing devices", ended(@{ $begun{$name} }));

    my @calls = calls($name);
    my ($refused, $probe, @more) = grep { $_->{op} eq 'create' } @calls;
    my @exist = grep { $_->{device} =~ /^$name\d\d?$/ } @calls;

    is(join(' ', map { "$_->{op} $_->{status}" } @exist),
       join(' ', ('send 204') x 20),
       "$name, devices that exist: one call each, of no registry");
    is(@more, 20, "$name, missing devices: one creation each");
    cmp_ok($probe->{time} - $refused->{time}, '>=', 3 - $EARLY,
           "$name, missing devices: held back");
    cmp_ok($more[0]{time} - $probe->{time}, '>=', 0.8 - $EARLY,
           "$name, missing devices: one call finds out whether it is over");
    is((grep { $_->{op} eq 'get' } @calls), 0, "$name: no questions");
}

# two devices that are disabled cannot be asked about, then; that is no reason
# to believe that the keys are refused, as the hub has taken messages

$hub->add('disabled1', 'disabled2', 'disabled3');
$hub->disable($_) for 'disabled1', 'disabled2';
$hub->settings({ disabled_status => 401 });
$hub->faults([{ op => 'create|get', device_re => '^disabled', status => 429,
                retry_after => 20 }]);

all('delivered', 'disabled: another device, before', sends('disabled3'));
begin('disabled100');
ok($t->wait_for_log(qr/gate closed, hub: "disabled", gate: registry/),
   'disabled: the registry is throttled');
sends('disabled1', 'disabled2');
all('delivered', 'disabled: another device', sends('disabled3'));
$hub->settings({ disabled_status => 404 });
$hub->faults([]);


# ---- the rate of creations, over both workers

my $start = time;

all('delivered', 'bucket', sends(devices(bucket => 60)));

my @at = map { $_->{time} - $start } calls('bucket', 'create');
my @over = grep { $_ + 1 > 5 + 20 * $at[$_] + 1 } 0 .. $#at;

is(scalar @at, 60, 'bucket: 60 creations');
is("@over", '', 'bucket: at no time more than burst + rate x time');
cmp_ok($at[-1], '<', 2.75 * 1.5 + 2, 'bucket: and not far less');

$t->wait_for_log(qr/^bucket/, count => 60, file => 'access.log');
%workers = map { (split)[3] => 1 }
    $t->log_lines(qr/^bucket\d+ delivered CREATED/, 'access.log');
is(keys %workers, 2, 'bucket: by both workers');


# ---- the worker of the probe is killed

sub connections {
    my (%at, @more);

    for (1 .. 100) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                      PeerPort => $t->port);
        my $pid = converse(compose(GET => '/pid', keepalive => 1),
                           socket => $s)->{body};

        $at{$pid} ? push @more, $s : ($at{$pid} = $s);
        last if keys %at == 2;
    }

    return %at;
}

$t->allow(qr/worker process \d+ exited on signal 9/);

$hub->add(devices(dead => 2));
$hub->faults([{ op => 'send', device => 'dead1', status => 429,
                retry_after => 1, times => 1 },
              { op => 'send', device => 'dead1', hang => 1, times => 1 }]);

my %at = connections();
my ($doomed, $other) = sort keys %at;

print { $at{$doomed} } webhook('dead1');
$at{$doomed}->flush;
ok($hub->wait_for(send => 2, 15, device => 'dead1'), 'dead: a probe hangs');
kill KILL => $doomed;
print { $at{$other} } webhook('dead2');
$at{$other}->flush;

my $answer = converse('', socket => $at{$other});

all('delivered', 'dead: another', $answer);
is(join(' ', map { "$_->{device} $_->{status}" } calls('dead')),
   'dead1 429 dead1 0 dead2 204', 'dead: it was the next probe');


# ---- the quota, which is tried again each minute

my $later = IoTHubTest->new;
my $clock = IoTHubTest::Clock->new($later);

sub minute {
    $clock ? $clock->advance(61) : sleep 61;
}


sub quota {
    my (@devices) = @_;

    return $later->parallel([map { webhook($_) } @devices], 20);
}

$later->nginx(($hub->block =~ s/contoso/quota/r) . <<'CONF',

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;
        location /quota { iothub_pass quota; }
    }

CONF
    $clock ? $clock->options : ());

@devices = devices(quota => 40);
$hub->add(@devices);
$hub->settings({ quota => 0 });
$hub->faults([]);

all('quota', 'quota: the first', quota('quota1'));
@answers = quota(@devices);
all('quota', 'quota', @answers);
is(max(map { $_->{status} } @answers), 503, 'quota: 503');
cmp_ok(max(map { $_->{time} } @answers), '<', 2, 'quota: at once');
is((grep { ($_->{headers}{'retry-after'} // 0) !~ /^(?:[45]\d|60)$/ }
    @answers), 0, 'quota: with the time of the next try');
is(scalar calls('quota'), 1, 'quota: without a call');

SKIP: {
    skip 'takes two minutes, with t/run --long', 6
        unless $clock || $ENV{IOTHUB_TEST_LONG};

    minute();
    all('quota', 'quota, a minute later', quota(@devices));
    is(scalar calls('quota'), 2, 'quota, a minute later: one call');

    # units were bought; until it is known, nobody waits for it

    $hub->settings({ quota => undef });
    $hub->faults([{ op => 'send', device_re => '^quota', delay => 1500,
                    times => 1 }]);
    minute();

    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $later->port);
    print {$s} webhook('quota1');
    $s->flush;

    ok($later->_until(15, sub { calls('quota') == 3 }),
       'quota, two minutes later: it is tried');
    quota(@devices[1 .. 9]);
    all('delivered', 'quota: the one that tried', converse('', socket => $s));

    my (undef, undef, $third, @more) = calls('quota');

    is((grep { $_->{time} < $third->{time} + 1.5 - $EARLY } @more), 0,
       'quota: meanwhile, there is no other call');
    all('delivered', 'quota: then', quota(@devices));
}

$t->done;
