#!/usr/bin/perl

# What happens to an identity over its life: it is deleted in the hub, it is
# disabled and enabled, it is young, its creator dies, or it is one of more
# than the cache holds; and the ten minutes for which a disabled one is left
# alone.

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

# what a timer may be early, by the clocks of both
my $EARLY = 0.05;

my $t = IoTHubTest->new;
my $second = IoTHubTest->new(
    allow => [qr/worker process \d+ exited on signal 9/]);
my $clock = IoTHubTest::Clock->new($t);
my $hub = $t->hub(tls => 0);

my %more = (
    contoso => 'register missing rate=off;', off => 'register off;',
    first => 'register first rate=off;',
);

my $conf = join("\n", map {
    $hub->block($more{$_}) =~ s/contoso/$_/r
} sort keys %more) . <<'CONF';

    iothub_secret off;

    log_format told '$iothub_device_id $iothub_result $iothub_identity $pid';
    access_log %%TESTDIR%%/access.log told;

    server {
        # shared out by the kernel: both workers get their part
        listen 127.0.0.1:%%PORT_8080%% reuseport;

        location / { iothub_pass contoso; }
        location /off { iothub_pass off; }
        location /first { iothub_pass first; }
        location = /pid { return 200 $pid; }

        location /soon {
            iothub_deadline 2s;
            iothub_pass contoso;
        }

        location /never {
            iothub_create 0;
            iothub_pass contoso;
        }
    }

CONF

$t->nginx($conf, $clock ? $clock->options : ());
$second->nginx($conf);


sub webhook {
    my ($device, $uri) = @_;

    return compose(POST => $uri // '/', keepalive => 1,
        body => "event=temp&coreid=$device&data=1", headers =>
        { 'Content-Type' => 'application/x-www-form-urlencoded' });
}


# begin(TEST, WEBHOOKS): their answers are not waited for; ended() does

sub begin {
    my ($test, @webhooks) = @_;

    return map {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                      PeerPort => $test->port) or die "$@\n";
        print {$s} $_;
        $s->flush;
        +{ s => $s, since => time };
    } @webhooks;
}


sub ended {
    my (@begun) = @_;

    return map {
        my $answer = converse('', socket => $_->{s});

        +{ %$answer, time => $answer->{at} - $_->{since} };
    } @begun;
}


sub sends {
    my ($devices, $uri) = @_;

    return $t->parallel([map { webhook($_, $uri) } @$devices], 20,
                        keepalive => 1);
}


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


sub calls {
    my ($device) = @_;

    return join ', ', map { "$_->{op} $_->{status}" }
        $hub->journal(device => $device, brief => 1);
}


# ops(OP): how many exchanges

sub ops { return scalar $hub->journal(op => $_[0], brief => 1) }


sub longest {
    my ($most) = sort { $b <=> $a } map { $_->{time} } @_;

    return $most;
}


# time passes in the gateway and in the hub

sub let_pass {
    my ($seconds) = @_;

    $hub->settings({ clock_offset => $clock->advance($seconds) });
}


# so much that nobody takes what the cache knows for news

sub age { $clock ? let_pass(20) : sleep 2.1 }


# ---- young: while the time passes, other things are tried in the other nginx

$hub->faults([
    { op => 'send', device => 'young', error => 'DeviceNotFound' },
    { op => 'create', device => 'half', accept => 1, hang => 1, times => 1 },
    { op => 'get', device => 'asked', delay => 6000, times => 1 },
]);

my @young = begin($t, webhook('young'));


# ---- whoever creates an identity, or asks about it, is killed

sub connections {
    my (%at, @more);

    for (1 .. 100) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                      PeerPort => $second->port);
        my $pid = converse(compose(GET => '/pid', keepalive => 1),
                           socket => $s)->{body};

        $at{$pid} ? push @more, $s : ($at{$pid} = $s);
        last if keys %at == 2;
    }

    return %at;
}

my %at = connections();
my ($doomed, $other) = sort keys %at;

$hub->add('asked');
$hub->disable('asked');

# the hub has created it, and nobody is there to be told

print { $at{$doomed} } webhook('half', '/first');
$at{$doomed}->flush;
my @cut = begin($second, map { webhook('asked', '/soon') } 1 .. 8);

ok($hub->wait_for(create => 1, 10, device => 'half'), 'killed: it creates');
ok($hub->wait_for(get => 1, 10, device => 'asked'), 'killed: one asks');

kill KILL => $doomed;
print { $at{$other} } webhook('half', '/first');
$at{$other}->flush;

all('delivered', 'killed, though the identity is there: another',
    converse('', socket => $at{$other}, timeout => 20));
is(scalar $hub->messages(device => 'half'), 1, 'killed: one message');
is(scalar $hub->journal(device => 'half', op => 'create', status => 200), 0,
   'killed: it is created once');

# their question may be lost with it, but nothing else is
ended(@cut);

$hub->add('calm');

all('delivered', 'killed: another device', ended(begin($second,
    map { webhook('calm') } 1 .. 10)));


# ---- how long a young identity is given

all('unavailable', 'young', ended(@young));

my @sent = map { $_->{time} } $hub->journal(device => 'young', op => 'send');
my ($created) = $hub->journal(device => 'young', op => 'create');

# the first after the creation is at once
is(scalar @sent, 7, 'young: five more tries');

my @gaps = map { $sent[$_] - $sent[$_ - 1] } 2 .. $#sent;
my @least = (0.2, 0.5, 1, 2, 4);

cmp_ok($gaps[$_], '>=', $least[$_] - $EARLY, "young: after $least[$_] s")
    for 0 .. $#least;

$hub->faults([]);


# ---- deleted in the hub, and known to all

my @known = map { "known$_" } 1 .. 10;

for my $uri ('/', '/first') {
    $hub->add(@known);
    sends(\@known, $uri);
    age();
    $hub->remove($_) for @known;
    $hub->forget;

    my @answers = sends([(@known) x 10], $uri);

    all('delivered', "deleted, $uri", @answers);
    cmp_ok(longest(@answers), '<', 3, "deleted, $uri: soon");
    is(ops('create'), 10, "deleted, $uri: created once each");
    is(ops('get'), 0, "deleted, $uri: nobody asks");
    is(scalar $hub->messages, 100, "deleted, $uri: a message each");
}

# and by two gateways, both of which know them

ended(map { begin($_, map { webhook($_) } @known) } $t, $second);
$hub->remove($_) for @known;
$hub->forget;
$hub->faults([{ op => 'create', delay => 200 }]);

all('delivered', 'deleted, two gateways',
    ended(map { begin($_, map { webhook($_) } (@known) x 5) } $t, $second));
cmp_ok(ops('create'), '<=', 20, 'deleted, two gateways: created once each');
is(scalar $hub->journal(op => 'create', status => 200), 10,
   'deleted, two gateways: it is there once');
is(scalar $hub->messages, 100, 'deleted, two gateways: a message each');
$hub->faults([]);

# where none may be created

for my $uri ('/off', '/never') {
    my ($device) = "gone$uri" =~ s{/}{}r;

    $hub->add($device);
    all('delivered', "deleted, $uri, before", sends([$device], $uri));
    age();
    $hub->remove($device);
    $hub->forget;
    all('blocked', "deleted, $uri", sends([($device) x 10], $uri));
    is(ops('create') + ops('get'), 0, "deleted, $uri: nothing is created");

    $hub->add($device);
    all('delivered', "deleted, $uri, and back", sends([$device], $uri));
}


# ---- disabled, and left alone for ten minutes

# name => [the hub's status, the calls of the recheck while it is disabled]

my %ways = (
    d401 => [401, qr/^(?:send 401, )+get 200(?:, send 401)*$/],
    d403 => [403, qr/^send 403(?:, send 403)*$/],
    d404 => [404, qr/^(?:send 404, )+get 200(?:, send 404)*$/],
);


# while one way of refusing is set, only its device is written to

sub each_way {
    my ($do) = @_;

    for my $device (sort keys %ways) {
        $hub->settings({ disabled_status => $ways{$device}[0] });
        $do->($device, $ways{$device}[1]);
    }
}

my @good = map { "good$_" } 1 .. 20;

$hub->add(sort(keys %ways), @good, 'deleted');
all('delivered', 'before', sends([sort(keys %ways), @good, 'deleted']));
age();
$hub->disable($_) for keys %ways, 'deleted';
$hub->forget;


# blocked(NAME, DEVICE): many webhooks at once, among those of other devices

sub blocked {
    my ($name, $device) = @_;

    my @answers = sends([map { ($_, $device) } @good]);

    all('delivered', "$name, others", @answers[grep { !($_ % 2) } 0 .. 39]);
    cmp_ok(longest(@answers[grep { !($_ % 2) } 0 .. 39]), '<', 3,
           "$name, others: not held back");
    all('blocked', $name, @answers[grep { $_ % 2 } 0 .. 39]);
}

each_way(sub {
    my ($device) = @_;

    blocked("disabled, $device", $device);
});

$hub->settings({ disabled_status => 404 });
blocked('disabled, to be deleted', 'deleted');

is(ops('get'), 3, 'disabled: asked about once, where there was a question');

SKIP: {
    skip 'needs libfaketime, and no sanitizers', 1 unless $clock;

    # nine minutes later

    let_pass(540);
    $hub->forget;

    blocked("after nine minutes, $_", $_) for sort keys %ways;

    is(scalar(grep { /^d\d/ } map { $_->{device} } $hub->journal), 0,
       'after nine minutes: without a call');

    # ten minutes, two times

    for my $n (1, 2) {
        let_pass($n == 1 ? 65 : 605);
        $hub->forget;

        each_way(sub {
            my ($device, $calls) = @_;
            my $name = "after $n times ten minutes, $device";

            blocked($name, $device);
            like(calls($device), $calls, "$name: a send, and a question");
        });

        is(ops('create'), 0, "after $n times ten minutes: nothing is created");
        is(ops('get'), 2, "after $n times ten minutes: asked about once");
    }

    # enabled meanwhile, or deleted

    $hub->enable($_) for keys %ways;
    $hub->remove('deleted');
    $hub->forget;

    all('blocked', 'enabled: not yet known', sends([sort keys %ways]));
    is(ops('send'), 0, 'enabled: nobody asks');

    let_pass(605);

    for my $device (sort keys %ways) {
        all('delivered', "enabled, $device", sends([$device]));
        is(calls($device), 'send 204', "enabled, $device: by a send");
    }

    all('delivered', 'deleted while it was disabled', sends(['deleted']));
    is(calls('deleted'), 'send 404, get 404, create 200, send 204',
       'deleted while it was disabled: asked about, then created');
}

is(ops('update'), 0, 'no identity is updated');
is(scalar(grep { exists $_->{headers}{'if-match'} } $hub->journal), 0,
   'and nothing is sent that could');


# ---- more devices than the cache holds

my $small = IoTHubTest->new;

sub small {
    my ($size, $state) = @_;

    return join("\n", map {
        $hub->block("zone $size" . ($state ? " state=$_.state" : '')
                    . "; $more{$_}") =~ s/contoso/$_/r
    } qw(contoso first)) . <<'CONF';

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;
        location / { iothub_pass contoso; }
        location /first { iothub_pass first; }
    }

CONF
}


sub small_sends {
    my ($devices, $uri) = @_;

    return $small->parallel([map { webhook($_, $uri) } @$devices], 20,
                            keepalive => 1);
}

my (undef, $output) = $small->nginx_t(small('4k'));
my ($least) = $output =~ /is too small, it needs at least (\d+)k/
    or BAIL_OUT("no least size in: $output");

my @many = map { "many$_" } 1 .. 800;
my @new = map { "new$_" } 1 .. 200;

$hub->add(@many, map { "off$_" } 1 .. 20);
$hub->disable("off$_") for 1 .. 20;
$small->nginx(small("${least}k"));

for my $n (1, 2) {
    $hub->forget;
    all('delivered', "a full cache, $n", small_sends(\@many));
    is(ops('create') + ops('get'), 0,
       "a full cache, $n: no calls of the registry");
}

all('delivered', 'a full cache, first', small_sends(\@many, '/first'));

$hub->forget;
all('delivered', 'a full cache, new devices',
    small_sends([map { ($_) x 3 } @new]));
is(ops('create'), 200, 'a full cache, new devices: created once each');
is(scalar $hub->messages, 600, 'a full cache, new devices: a message each');

my @off = map { "off$_" } 1 .. 20;

all('blocked', 'a full cache, disabled', small_sends(\@off));
small_sends(\@many);
all('blocked', 'a full cache, still disabled', small_sends(\@off));
is(scalar $small->log_lines(qr/no memory|\[(?:warn|alert)\]/), 0,
   'a full cache: nothing is said');
$small->stop;


# ---- damage at the start of a state file, where its header is

$small->nginx(small('1m', 1));
small_sends([@many[0 .. 9]], '/first');
$small->stop;

my $saved = $small->read_file('first.state');

for my $at (0, 5, 9, 17, 26, 40) {
    my $bytes = $saved;

    substr($bytes, $at, 1) ^= "\x10";
    $small->write_file('first.state', $bytes);
    unlink $small->dir . '/error.log';

    $small->nginx(small('1m', 1));
    is(scalar $small->log_lines(qr/first\.state" .* starts empty/), 1,
       "state, byte $at changed: said");
    $hub->forget;
    all('delivered', "state, byte $at changed",
        small_sends([$many[0]], '/first'));
    is(ops('create'), 1, "state, byte $at changed: starts empty");
    $small->stop;
}

$t->done;
