#!/usr/bin/perl

# Keys that a hub refuses, and policies that lack a right, under load: what is
# tried how often, what is said, who is held back, and that all of it heals
# by itself.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::Clock;
use IoTHubTest::HTTP qw(compose);

my $CONCURRENCY = 10;

my $t = IoTHubTest->new(allow => [qr/\[crit\].* iothub hub "\w+" refuses/]);
my $clock = IoTHubTest::Clock->new($t);
my $hub = $t->hub(tls => 0);

# hubs of one simulator, each with a policy of its own; the ids of its devices
# start with its name

my %more = (
    rotated => 'register missing rate=off;', refused => '',
    connect => '',
    missing => '', first => 'register first;', stale => 'register first;',
    disabled => '', unread => '', replaced => '',
);

my (%keys, %policies);


sub new_key {
    return encode_base64(join('', map { chr int rand 256 } 1 .. 32), '');
}


# of two keys, and of the hub's policy; what is not given stays

sub set_keys {
    my ($name, @keys) = @_;

    $keys{$name} = \@keys;
    $t->write_file("$name.key", join '', map { "$_\n" } @keys);
}


sub hub_has {
    my ($name, @keys) = @_;

    @{ $policies{$name} }{qw(primary secondary)} = @keys;
    $hub->policies(\%policies);
}


sub rights {
    my ($name, @rights) = @_;

    $policies{$name}{rights} = \@rights;
    $hub->policies(\%policies);
}


sub conf {
    my $blocks = '';

    for my $name (sort keys %more) {
        my $block = $hub->block("zone 1m; $more{$name}");

        $block =~ s/contoso/$name/;
        $block =~ s/policy \S+;/policy $name;/;
        $block =~ s/key_file \S+;/key_file $name.key;/;
        $blocks .= "$block\n";
    }

    return $blocks . <<'CONF';

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;
        location ~ ^/(?<name>[a-z]+)$ { iothub_pass $name; }
    }

CONF
}

for my $name (keys %more) {
    set_keys($name, new_key(), new_key());
    $policies{$name} = {};
    @{ $policies{$name} }{qw(primary secondary)} = @{ $keys{$name} };
}

$hub->policies(\%policies);
$t->nginx(conf(), $clock ? $clock->options : ());


sub webhook {
    my ($device) = @_;

    my ($name) = $device =~ /^([a-z]+)/;

    return compose(POST => "/$name",
        body => "event=temp&coreid=$device&data=1", headers =>
        { 'Content-Type' => 'application/x-www-form-urlencoded' });
}


sub sends {
    my ($devices, %o) = @_;

    return $t->parallel([map { webhook($_) } @$devices], $CONCURRENCY, %o);
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
    my ($name, %filter) = @_;

    return $hub->journal(%filter, device => qr/^$name\d/);
}


sub refusals { return calls($_[0], status => 401) }


# alarms(HUB, TEXT): lines of the level crit

sub alarms {
    my ($name, $text) = @_;

    return scalar $t->log_lines(qr/\[crit\].* hub "$name" .*(?:$text)/);
}


sub devices {
    my ($name, $first, $last) = @_;

    return map { "$name$_" } $first .. $last;
}


# longest(ANSWERS): in seconds

sub longest {
    my ($most) = sort { $b <=> $a } map { $_->{time} } @_;

    return $most;
}


# later(SECONDS)

sub later {
    my ($seconds) = @_;

    $clock ? $clock->advance($seconds) : sleep $seconds;
}


# ---- both keys are replaced, one after the other, under load

# each tenth webhook is of a device that is new

my @known = devices(rotated => 1, 30);
my $new = 100;

$hub->add(@known);

sub load {
    my ($count, %events) = @_;

    my @devices = map { $_ % 10 ? $known[ $_ % @known ] : 'rotated' . $new++ }
        1 .. $count;

    $hub->forget;

    return sends(\@devices, on_answer => sub {
        my ($event) = $events{ $_[2] } // return;
        $event->();
    });
}

my ($primary, $secondary) = @{ $keys{rotated} };
my ($primary2, $secondary2) = (new_key(), new_key());

all('delivered', 'the secondary is replaced', load(100, 30 => sub {
    hub_has(rotated => $primary, $secondary2);
}, 60 => sub {
    set_keys(rotated => $primary, $secondary2);
    $t->signal('HUP');
}));

is(scalar refusals('rotated'), 0, 'the secondary is replaced: unnoticed');
$t->reload(undef, wait_old => 1);

all('delivered', 'the primary is replaced', load(200, 60 => sub {
    hub_has(rotated => $primary2, $secondary2);
}));

my @refused = refusals('rotated');

cmp_ok(scalar @refused, '>', 0, 'the primary is replaced: noticed');
cmp_ok(scalar @refused, '<=', $CONCURRENCY,
       'the primary is replaced: by no more calls than were under way');

all('delivered', 'nginx is reloaded', load(100, 40 => sub {
    $t->signal('HUP');
}));

is(scalar refusals('rotated'), 0, 'nginx is reloaded: the key is remembered');
is(join(' ', sort keys %{ { map { $_->{token}{key} => 1 }
                            calls('rotated') } }), 'secondary',
   'nginx is reloaded: for messages and identities');

set_keys(rotated => $primary2, $secondary2);
$t->reload(undef, wait_old => 1);

# back at the primary, as the secondary is refused

all('delivered', 'the secondary is replaced again', load(200, 60 => sub {
    hub_has(rotated => $primary2, new_key());
}));

cmp_ok(scalar refusals('rotated'), '<=', $CONCURRENCY,
       'the secondary is replaced again: noticed as soon');

# both are new: all workers start at the primary

set_keys(rotated => new_key(), new_key());
hub_has(rotated => @{ $keys{rotated} });
$t->reload(undef, wait_old => 1);

all('delivered', 'both are new', load(50));
is(scalar refusals('rotated'), 0, 'both are new: nothing is refused');
is(join(' ', sort keys %{ { map { $_->{token}{key} => 1 }
                            calls('rotated') } }), 'primary',
   'both are new: the primary is used');


# ---- both keys are refused

my @devices = devices(refused => 1, 50);

sub few {
    my ($name, $calls) = @_;

    my %devices = map { $_->{device} => 1 } @$calls;

    # a delivery: each key for the message and for the question why
    is(keys %devices, 1, "$name: one delivery finds out");
    cmp_ok(scalar @$calls, '<=', 4, "$name: by four calls at the most");
}

$hub->add(@devices);
hub_has(refused => new_key(), new_key());
$hub->forget;

my @answers = sends([(@devices) x 2]);

all('credentials', 'refused', @answers);
is((grep { $_->{status} != 503 } @answers), 0, 'refused: 503');
is((grep { ($_->{headers}{'retry-after'} // 0) !~ /^(?:[1-9]|10)$/ }
    @answers), 0, 'refused: Retry-After of 1 to 10 seconds');
cmp_ok(scalar calls('refused'), '<=', 4 * 2 * $CONCURRENCY,
       'refused: few calls, until it is clear');
is(alarms(refused => 'refuses every key of policy "refused"'), 1,
   'refused: said once');

ok($t->wait_for_log(qr/gate closed, hub: "refused", gate: send, (?x:
                    )result: credentials, for: 10\.000 s/),
   'refused: the gate is closed');

$hub->forget;
@answers = sends(\@devices);
all('credentials', 'refused, again', @answers);
is(scalar calls('refused'), 0, 'refused, again: without a call');
cmp_ok(longest(@answers), '<', 2, 'refused, again: at once');

for my $n ($clock ? 1 .. 6 : 1) {
    later(11);
    $hub->forget;
    all('credentials', "refused, after $n times 11 s",
        sends([@devices[0 .. 19]]));
    few("refused, after $n times 11 s", [calls('refused')]);
}

is(alarms(refused => 'refuses every key'), $clock ? 2 : 1,
   'refused: said once a minute');

hub_has(refused => @{ $keys{refused} });
later(11);
all('delivered', 'accepted again', map { sends($_) }
    [$devices[0]], \@devices);
is(scalar $t->log_lines(qr/gate opened, hub: "refused", gate: send/), 1,
   'accepted again: said');


# ---- a policy without rights in the registry

for my $name (qw(missing first)) {
    my @exist = devices($name, 1, 40);
    my @missing = devices($name, 101, 120);

    $hub->add(@exist);
    rights($name, 'DeviceConnect');

    # half of them is known, of the others the hub has not heard yet

    all('delivered', "$name, no rights in the registry, known",
        sends([@exist[0 .. 19]]));
    all('credentials', "$name, no rights in the registry, a missing device",
        sends(["${name}100"]));

    $hub->forget;

    my @both = map { ($exist[$_], $exist[$_ + 20], $missing[$_]) } 0 .. 19;
    @answers = sends(\@both);

    all('delivered', "$name, no rights in the registry, devices that exist",
        map { @answers[3 * $_, 3 * $_ + 1] } 0 .. 19);
    all('credentials', "$name, no rights in the registry, missing devices",
        map { $answers[3 * $_ + 2] } 0 .. 19);
    cmp_ok(longest(@answers), '<', 3,
           "$name, no rights in the registry: nobody waits");
    is((grep { $_->{op} ne 'send' } calls($name)), 0,
       "$name, no rights in the registry: it is not asked for each");
    is(alarms($name => 'lacks the right registry write'), 1,
       "$name, no rights in the registry: said once");
    is(alarms($name => 'every key|device connect'), 0,
       "$name, no rights in the registry: and nothing else");

    rights($name, qw(DeviceConnect RegistryRead RegistryWrite));
    if ($clock) {
        later(11);
        all('delivered', "$name, with all rights", map { sends($_) }
            [$missing[0]], \@missing);
    }
}

# one key is stale, too: the other one is good for messages

my $n = 0;

$hub->add(devices(stale => 1, 3));
rights(stale => 'DeviceConnect');

for my $stale ($clock ? (1, 0, 0) : 1) {
    my @has = @{ $keys{stale} };

    $has[$stale] = new_key();
    hub_has(stale => @has);
    $n++;

    all('delivered', 'no rights in the registry, the '
        . ($stale ? 'secondary' : 'primary') . " stale, $n",
        sends(["stale$n"]));
    later(11) if $clock;
}


# ---- a policy without device connect

@devices = devices(connect => 1, 40);
$hub->add(@devices);
rights(connect => qw(RegistryRead RegistryWrite));
$hub->forget;

all('credentials', 'no device connect', sends(\@devices));
cmp_ok(scalar calls('connect'), '<=', 4 * 2 * $CONCURRENCY,
       'no device connect: few calls, until it is clear');
is(alarms(connect => 'policy "connect" lacks the right device connect'), 1,
   'no device connect: said once');
is(alarms(connect => 'every key|registry'), 0,
   'no device connect: and nothing else');

$hub->forget;
all('credentials', 'no device connect, again', sends(\@devices));
is(scalar calls('connect'), 0, 'no device connect, again: without a call');

rights(connect => qw(DeviceConnect RegistryRead RegistryWrite));

if ($clock) {
    later(11);
    all('delivered', 'with device connect', map { sends($_) }
        [$devices[0]], \@devices);
}


# ---- devices that are refused, while the others go on

$hub->settings({ disabled_status => 401 });

# the policy may ask about them

my @bad = devices(disabled => 1, 3);
my @good = devices(disabled => 11, 40);

$hub->add(@bad, @good);
$hub->disable($_) for @bad;
$hub->forget;

for my $n (1 .. 3) {
    my @mixed = map { ($_, $bad[ rand @bad ]) } @good;

    @answers = sends(\@mixed);

    all('delivered', "devices refused, the others, $n",
        map { $answers[2 * $_] } 0 .. $#good);
    cmp_ok(longest(map { $answers[2 * $_] } 0 .. $#good), '<', 3,
           "devices refused, the others, $n: not held back");
    all('blocked', "devices refused, $n",
        map { $answers[2 * $_ + 1] } 0 .. $#good) if $n > 1;
}

is(scalar calls('disabled', op => 'get'), 3,
   'devices refused: one question each');
is(alarms(disabled => ''), 0, 'devices refused: no alarm');

# it may not: one device that is refused is not all of them

my $bad = 'unread1';

@good = devices(unread => 11, 40);
$hub->add($bad, @good);
$hub->disable($bad);
rights(unread => qw(DeviceConnect RegistryWrite));
$hub->forget;

for my $n (1 .. 3) {
    all('credentials', "one device refused, $n", sends([($bad) x 10]));
    $hub->forget;

    @answers = sends([map { ($_, $bad) } @good]);

    all('delivered', "one device refused, the others, $n",
        map { $answers[2 * $_] } 0 .. $#good);
    cmp_ok(longest(map { $answers[2 * $_] } 0 .. $#good), '<', 3,
           "one device refused, the others, $n: not held back");
    all('credentials', "one device refused, with them, $n",
        map { $answers[2 * $_ + 1] } 0 .. $#good);

    # a question is two calls, by both keys
    cmp_ok(scalar calls('unread', op => 'get'), '<=', 4,
           "one device refused, with them, $n: it is not asked for each");

    later(11) if $clock;
}

is(scalar $t->log_lines(qr/gate closed, hub: "(?:unread|disabled)"/), 0,
   'one device refused: no gate is closed');

$hub->settings({ disabled_status => 404 });


# ---- tokens are renewed under load

# ---- a worker that is replaced, with keys that are

{
    my @new = (new_key(), new_key());
    my @sockets;

    $hub->add(devices(replaced => 1, 3));
    hub_has('replaced', @new);
    $hub->faults([{ op => 'send', device_re => '^replaced[12]$', times => 2,
                    delay => 3000 }]);

    for my $device (devices(replaced => 1, 2)) {
        my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                           PeerPort => $t->port)
            or die "connect: $!";

        $socket->print(webhook($device));
        push @sockets, $socket;
    }

    ok($t->_until(15, sub { $hub->faults->[0]{hits} == 2 }),
       'replaced: two messages with the old keys are under way');
    set_keys('replaced', @new);
    ok($t->reload(conf()), 'replaced: reloaded with the new ones');

    for my $socket (@sockets) {
        like(<$socket> // '', qr{^HTTP/1\.1 503 },
             'replaced: the old keys are refused');
    }

    my ($answer) = $t->parallel([webhook('replaced3')], 1);

    is($answer->{status}, 204, 'replaced: the new ones are not');
    $hub->faults([]);
}


SKIP: {
    my $renewing = IoTHubTest->new;
    my $day = IoTHubTest::Clock->new($renewing, wall => 1);

    skip 'needs libfaketime, and no sanitizers', 4 unless $day;

    my $block = $hub->block('token_lifetime 10m;');

    $policies{gateway} = { primary => ($hub->keys)[0] };
    $hub->policies(\%policies);
    $hub->add(devices(renewed => 1, 20));
    $hub->forget;

    $renewing->nginx($block . "\n"
        . $block =~ s/contoso/scoped/r =~ s/token_lifetime/token_scope device;
            token_lifetime/r . <<'CONF', $day->options);

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;
        location / { iothub_pass contoso; }
        location /scoped { iothub_pass scoped; }
    }

CONF

    # Each five webhooks, 40 seconds have passed.  The hub's clock is ahead by
    # as much as it lets a token be over its time.

    my @webhooks = map {
        my $device = 'renewed' . (1 + $_ % 20);
        my $uri = $_ % 2 ? '/' : '/scoped';

        webhook($device) =~ s{/renewed}{$uri}r;
    } 1 .. 300;

    @answers = $renewing->parallel(\@webhooks, $CONCURRENCY,
        on_answer => sub {
            $hub->settings({ clock_offset => $day->advance(40) + 300 })
                unless $_[2] % 5;
        });

    all('delivered', 'renewed', @answers);

    my @calls = calls('renewed');
    my %tokens = map { $_->{token}{se} => 1 }
        grep { $_->{token}{sr} !~ /%2F/ } @calls;

    is(scalar @calls, 300, 'renewed: no call is repeated');
    is((grep { $_->{status} != 204 } @calls), 0, 'renewed: none is refused');

    # 40 minutes; each token is used for 7.5
    cmp_ok(keys %tokens, '>=', 5, 'renewed: often');

    $hub->settings({ clock_offset => 0 });
}

$t->done;
