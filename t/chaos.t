#!/usr/bin/perl

# Everything that goes wrong, at once: a fifth of the hub's answers are wrong,
# late or lost, keys are rotated, nginx is reloaded and a worker is killed
# while webhooks come.  Afterwards what the senders were told, what the hub
# has and what the logs say are compared.
#
# IOTHUB_TEST_CHAOS=long, which t/run --chaos sets, makes it 20,000 webhooks.
# IOTHUB_TEST_SEED=N draws again what chance drew for that seed; what comes
# first on the wire is still the machine's.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use List::Util qw(max min shuffle sum0);
use POSIX qw(mktime);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::Faults qw(share_out wire_faults word_faults);

my $LONG = ($ENV{IOTHUB_TEST_CHAOS} // '') eq 'long';
my $SEED = $ENV{IOTHUB_TEST_SEED} // int rand 2 ** 31;

my $t = IoTHubTest->new(crit => 0);

my $slow = $t->is_static || $ENV{IOTHUB_TEST_VALGRIND};
my ($COUNT, $DEVICES) = $LONG ? (20_000, 500) : $slow ? (600, 60)
    : (2000, 100);
my $CONCURRENCY = 64;
my $DEADLINE = 6;

# seconds that an answer may take beyond it, because the machine is busy
my $LATE = $slow ? 5 : 2;

# of the calls
my $SHARE = 0.2;

# the problem's words, and their status
my %STATUS = (
    refused => 422, blocked => 422, throttled => 503, unavailable => 503,
    creation_limited => 503, quota => 503, credentials => 503,
    misconfigured => 503, timeout => 504,
);

srand $SEED;
note "IOTHUB_TEST_SEED=$SEED";

my $MARKER = sprintf 'payload%08x', rand 2 ** 32;

my $hub = $t->hub(policy => 'gateway', args => ['--seed', $SEED],
                  settings => { settle => 300 });

(my $eager = $hub->block('register first rate=100r/s; '
    . 'proxy_read_timeout 1500ms;')) =~ s/contoso/eager/;
(my $spent = $hub->block('register missing;')) =~ s/contoso/spent/;

$t->nginx($hub->block('register missing rate=100r/s; '
    . 'proxy_read_timeout 1500ms;') . "$eager\n$spent\n" . <<"CONF");

    iothub_secret off;
    iothub_deadline ${DEADLINE}s;
    keepalive_requests 200;

    log_format told '\$request_uri \$status \$iothub_result \$pid';
    access_log %%TESTDIR%%/access.log told;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;

        location /contoso/ { iothub_pass contoso; }
        location /eager/ { iothub_pass eager; }
        location /spent/ { iothub_pass spent; }
    }

CONF


# ---- the devices: by their first letters, some that exist, most that do not,
# and some that are disabled, which the hub says in one of three ways

my @known = map { "known-$_" } 1 .. $DEVICES / 10;
my @off = map { my $how = $_; map { "off-$how-$_" } 1 .. $DEVICES / 60 }
    401, 403, 404;
my @eager = map { "eager-$_" } 1 .. $DEVICES / 10;
my @spent = map { "spent-$_" } 1 .. $DEVICES / 50;
my @new = map { "new-$_" }
    1 .. $DEVICES - @known - @off - @eager - @spent;

my @exist = (@known, @off, @spent, @eager[0 .. $#eager / 2]);

$hub->add(splice @{[@exist]}, $_ * 50, 50) for 0 .. $#exist / 50;
$hub->disable($_) for @off;

# in the order in which they come up
my @devices = shuffle(@known, @off, @eager, @spent, @new);


# ---- the webhooks

my %form = ('Content-Type' => 'application/x-www-form-urlencoded');


# The message id is the sender's, or a hash that a repeat has again, or one of
# chance.

sub webhook {
    my ($n) = @_;

    my $up = min(scalar @devices, 5 + @devices * $n * 1.2 / $COUNT);
    my $device = $devices[rand $up];
    my ($where) = $device =~ /^(eager|spent)/;
    my $kind = ('random', ('hashed') x 2, ('given') x 17)[rand 20];
    my $time = '2026-11-23T10:00:00' . ($kind eq 'hashed' ? '.250Z' : 'Z');
    my $data = "$MARKER-$n" . (rand() < 0.03 ? '-' . 'x' x 30_000 : '');

    return {
        n => $n, device => $device, kind => $kind,
        id => $kind eq 'given' ? "event-$n-$$" : undef,
        uri => '/' . ($where // 'contoso') . "/$n",
        form => "event=temp&coreid=$device&data=$data&published_at=$time"
            . ($kind eq 'given' ? "&event_id=event-$n-$$" : ''),
        body => qq({"data":"$data","device_id":"$device","event":"temp",)
            . qq("published_at":"$time"}),
        cuts => [],
    };
}

my @webhooks = map { webhook($_) } 0 .. $COUNT - 1;


# ---- the faults

# Throttles close gates for all: each a few times, as the hub comes to them.

sub at {
    my ($part, %rule) = @_;

    return { times => 1, %rule, after => int $part };
}

my $main = '^(?:known|new)';
my $creations = 0.8 * $DEVICES;

my @rules = (
    { op => 'send', device_re => '^off-401', code => 401003,
      name => 'off, 401' },
    { op => 'send', device_re => '^off-403', code => 403012,
      name => 'off, 403' },

    at(0.03 * $COUNT, op => 'send', device_re => $main, code => 429001,
       retry_after => 1, times => 2, name => 'throttled 1'),
    at(0.35 * $COUNT, op => 'send', device_re => $main, code => 429002,
       retry_after => 'date+2', format => 2, name => 'throttled date'),
    at(0.45 * $COUNT, op => 'send', device_re => $main, status => 429,
       format => 'empty', times => 2, name => 'throttled'),

    at(0.2 * $creations, op => 'create', code => 429001, retry_after => 2,
       name => 'creation throttled 2'),
    at(0.6 * $creations, op => 'create', code => 429003,
       name => 'creation throttled'),

    at($LONG ? 20 : 2, op => 'send', device_re => '^spent', code => 403002,
       name => 'quota'),

    # the registry's answers are waited for longer than a delivery lasts
    at(0.4 * $creations, op => 'create', delay => 7000, times => 2,
       name => 'creation late'),
    !$LONG ? () :
        at(0.1 * $creations, op => 'create', hang => 1, name => 'hang'),

    share_out($SHARE, { op => 'send' }, word_faults(), wire_faults(),
        { hang => 1, name => 'hang', weight => 6 },
        { hang => 1, accept => 1, name => 'accepted, hang', weight => 6 },
        map { { status => $_, accept => 1, name => "accepted, $_",
                weight => 2 } } 200, 201, 202),
    share_out($SHARE, { op => 'create' }, word_faults(), wire_faults(),
        { status => 201, accept => 1, name => 'accepted, 201' }),
    share_out($SHARE, { op => 'get' }, word_faults(), wire_faults()),
);

$hub->faults(\@rules);


# ---- what else happens, by the part of the webhooks that were answered

my %happened;
my @keys = $hub->keys;

sub happens {
    my ($what) = @_;

    push @{ $happened{$what} }, time;
    note sprintf '%.1f s: %s', time - $happened{start}[0], $what
        if $happened{start};
}


sub set_keys {
    my (@at_hub) = @_;

    $hub->policies({ gateway => { primary => $at_hub[0],
                                  secondary => $at_hub[1] } });
}


# One of the two keys that the gateway has works at any time.

sub regenerate {
    my ($which) = @_;

    push @keys, $keys[$which];
    $keys[$which] = IoTHubTest::Hub::_random_key();
    set_keys(@keys[0, 1]);
    happens('key regenerated');
}


sub reload {
    $t->write_file($hub->key_file, "$keys[0]\n$keys[1]\n");
    $t->signal('HUP');
    happens('reload');
}


my $killed;

sub kill_worker {
    ($killed) = reverse $t->worker_pids;

    kill KILL => $killed;
    happens('worker killed');
}


sub refuse {
    push @keys, IoTHubTest::Hub::_random_key();
    set_keys($keys[-1], $keys[-1]);
    happens('keys refused');
}


my %deleted;

sub delete_devices {
    my @there = grep { /^new/ } map { $_->{deviceId} } $hub->devices;

    for my $device (splice @{[shuffle(@there)]}, 0, $DEVICES / 25) {
        $hub->remove($device);
        push @{ $deleted{$device} }, time;
    }

    happens('devices deleted');
}


my @events = $LONG ? (
    [0.08, \&reload],
    [0.16, \&regenerate, 0],
    [0.24, \&reload],
    [0.32, \&delete_devices],
    [0.40, \&regenerate, 1],
    [0.50, \&kill_worker],
    [0.60, \&reload],
    [0.70, \&delete_devices],
    [0.80, \&refuse],
) : (
    [0.15, \&regenerate, 0],
    [0.30, \&reload],
    [0.45, \&delete_devices],
    [0.60, \&kill_worker],
);


sub on_answer {
    my (undef, undef, $done) = @_;

    while (@events && $done >= $events[0][0] * $COUNT) {
        my (undef, $event, @arguments) = @{ shift @events };

        $event->(@arguments);
    }

    if ($happened{'keys refused'} && !$happened{'keys accepted'}
        && time > $happened{'keys refused'}[0] + 3)
    {
        set_keys(@keys[0, 1]);
        happens('keys accepted');
    }
}


# ---- the run

# Senders that are turned away at once stay away for a while; half of those
# that failed try once more.

sub told {
    my ($answer) = @_;

    return $answer->{told} //= do {
        my $problem = eval { decode_json($answer->{body}) } // {};

        $answer->{status} =~ /^2/ ? 'delivered' : $problem->{code} // '?';
    };
}

$t->allow(qr/worker process \d+ exited on signal 9/);
happens('start');

my @answers = $t->parallel(
    [map { [POST => $_->{uri}, body => $_->{form}, headers => \%form] }
     @webhooks],
    $CONCURRENCY, keepalive => 1, on_answer => \&on_answer,
    rest => sub {
        my ($index, $answer) = @_;

        return $answer->{status} == 503 && $answer->{time} < 0.2
            && $webhooks[$index]{device} !~ /^spent/ ? 1 : undef;
    },
    again => sub {
        my ($index, $answer) = @_;

        return if @{ $answer->{before} } || $answer->{status} =~ /^2/
            || $index % 2 || $webhooks[$index]{kind} eq 'random';

        return 0.3 + rand 2;
    });

happens('end');

for my $i (0 .. $#answers) {
    my $w = $webhooks[$i];

    $w->{answers} = [@{ $answers[$i]{before} }, $answers[$i]];
    $w->{cuts} = [map { @{ $_->{cuts} } } @{ $w->{answers} }];
}

is(scalar @events, 0, 'all happened that was to happen');

# a call to the registry may take its minute
my $MINUTE = $LONG ? 70 : 20;

ok($t->_until($MINUTE, sub { $t->worker_pids == 2 }),
   'two workers, the old ones are gone');

my @fired = @{ $hub->faults };
my %secret = map { $_ => 'a key of the policy' } @keys;

for my $device ($hub->devices) {
    $secret{$_} = "a key of $device->{deviceId}"
        for values %{ $device->{authentication}{symmetricKey} };
}

# What runs ends, and all of it is in the logs, but for calls of the killed
# worker.

my $told = sum0(map { scalar @{ $_->{answers} } } @webhooks)
    - $t->log_lines(qr/ $killed#.*not delivered.*result: timeout/)
    + $t->log_lines(qr/ $killed#.*call ended after the deadline/);

$t->_until($MINUTE, sub { $t->log_lines(qr/./, 'access.log') >= $told });
$t->stop;


# ---- the evidence

# nothing(NAME, LIST): a test that the list is empty, which shows some of it

sub nothing {
    my ($name, @found) = @_;

    is(scalar @found, 0, $name)
        or diag(map { "    $_\n" } splice @found, 0, 5);
}


# The simulator's journal: decoding all of it takes minutes.

sub exchanges {
    my @exchanges;

    open my $journal, '<:raw', $hub->dir . '/journal' or die "journal: $!\n";

    while (<$journal>) {
        my %e;

        @e{qw(time status accepted)} =
            /^\{"n":\d+,"time":([\d.]+),.*?"status":(\d+),"accepted":(\w+),/;

        for my $name (qw(op device fault error request_id)) {
            $e{$name} = $1 if /"$name":"((?:[^"\\]|\\.)*)"/;
        }

        ($e{id}) = /"iothub-messageid":"([^"]*)"/;
        $e{accepted} = $e{accepted} eq 'true';

        if ($e{op} eq 'send' && $e{accepted}) {
            ($e{body}) = /"body":"((?:[^"\\]|\\.)*)"\}$/;
            $e{body} =~ s/\\(.)/$1/g;
        }

        push @exchanges, \%e;
    }

    return @exchanges;
}

my @exchanges = exchanges();
my @sends = grep { $_->{op} eq 'send' } @exchanges;
my %by_request_id = map { ($_->{request_id} // '') => $_ } @exchanges;


# ---- what was told, and what the hub has

my (@strange, @lost, @ids, @words, @late, %told, %count);

for (grep { $_->{accepted} } @sends) {
    my ($n) = $_->{body} =~ /"data":"$MARKER-(\d+)/;
    my $w = defined $n ? $webhooks[$n] : undef;

    if (!$w || $_->{device} ne $w->{device} || $_->{body} ne $w->{body}) {
        push @strange, "$_->{device}: " . substr $_->{body}, 0, 100;
        next;
    }

    push @{ $w->{messages} }, $_;
}

for my $w (@webhooks) {
    my @messages = @{ $w->{messages} // [] };
    my %ids = map { $_->{id} // 'none' => 1 } @messages;
    my $name = "webhook $w->{n} of $w->{device}";

    for my $answer (@{ $w->{answers} }) {
        my $word = told($answer);
        my $took = $answer->{time};

        $told{$word}++;
        $count{answers}++;

        push @lost, "$name: " . join ' ', keys %ids
            if $word eq 'delivered' && !@messages;
        push @late, sprintf '%s: %s after %.3f s', $name, $word, $took
            if !@{ $answer->{cuts} }
               && ($count{longest} = max($count{longest} // 0, $took))
                  == $took && $took > $DEADLINE + $LATE;

        next if $word eq 'delivered';

        push @words, "$name: $answer->{status} $word: $answer->{head}"
            if !problem_is_right($answer, $word);
    }

    my @told = map { told($_) } @{ $w->{answers} };

    $count{'delivered at last'}++ if $told[-1] eq 'delivered';
    $count{'repeated by the sender'}++ if @told > 1;
    $count{'messages of which no sender knows'}++
        if @messages && !grep { $_ eq 'delivered' } @told;
    $count{'events that the hub has more than once'}++ if @messages > 1;

    # a sender's repeat of an event without an id of its own is another event

    next if $w->{kind} eq 'random' && @{ $w->{cuts} };

    push @ids, "$name: " . join ' ', sort keys %ids
        if keys %ids > 1 || @messages && $w->{id} && !$ids{ $w->{id} };
}


sub problem_is_right {
    my ($answer, $word) = @_;

    my $problem = eval { decode_json($answer->{body}) } // return 0;
    my $after = $answer->{headers}{'retry-after'};

    return 0 if !$answer->{complete}
        || ($STATUS{$word} // 0) != $answer->{status}
        || $problem->{status} != $answer->{status}
        || $answer->{headers}{'content-type'} ne 'application/problem+json'
        || $answer->{body} =~ /$MARKER|Signature/;

    return $answer->{status} == 503
        ? ($after // '') =~ /^\d+$/ && $after >= 1 && $after <= 300
        : !defined $after;
}


nothing('each 2xx has its message in the hub', @lost);
nothing('each message is of its device, with its body', @strange);
nothing('what the hub has twice has one message id', @ids);
nothing('each failure is told by a word of the contract', @words);
nothing('no answer is late', @late);
nothing('nothing is delivered for disabled devices',
        map { "webhook $_->{n} of $_->{device}" }
        grep { $_->{device} =~ /^off/ && $_->{messages} } @webhooks);

cmp_ok($told{delivered} // 0, '>', $count{answers} * 0.6,
       'most are delivered');
cmp_ok($count{'events that the hub has more than once'} // 0, '>', 0,
       'there are duplicates to tell');


# ---- connections that ended without an answer

sub within {
    my ($time, $seconds, @moments) = @_;

    return grep { $time >= $_ - 0.1 && $time <= $_ + $seconds } @moments;
}

my @cuts;

for my $w (@webhooks) {
    for my $cut (@{ $w->{cuts} }) {
        my $by = within($cut->{time}, 2, @{ $happened{'worker killed'} })
            ? 'the kill'
            : $cut->{kept} && within($cut->{time}, $DEADLINE + 5,
                                     @{ $happened{reload} // [] })
            ? 'a reload, before it was read' : undef;

        $cut->{by} = $by;
        $count{"cut by $by"}++ if defined $by;
        push @cuts, "webhook $w->{n} at "
            . ($cut->{time} - $happened{start}[0]) if !defined $by;
    }
}

nothing('no connection ends without an answer but for a reason', @cuts);
cmp_ok($count{'cut by the kill'} // 0, '<=', $CONCURRENCY,
       'not more than a worker held');


# ---- the access log: who was read was answered

my (@unanswered, %logged);

# what the killed worker had told, and not ended
my %unended = map { m{ $killed\#.*not\ delivered.*result:\ timeout.*
                       \ request:\ "POST\ /\w+/(\d+)\ }x ? ($1 => 1) : () }
    split /^/m, $t->error_log(no_debug => 1);

for ($t->log_lines(qr/./, 'access.log')) {
    my ($uri, $status, $result) = split;
    my ($n) = $uri =~ m{/(\d+)$} or next;

    push @{ $logged{$n} }, "$status $result";
}

for my $w (@webhooks) {
    my @told = map { "$_->{status} " . told($_) } @{ $w->{answers} };
    my @logged = @{ $logged{ $w->{n} } // [] };

    # what the killed worker wrote may not have got to the sender, and it may
    # not have written what did

    my $more = grep { ($_->{by} // '') eq 'the kill' } @{ $w->{cuts} };
    my $less = grep { within($_->{at}, 0.2, map { $_ - 0.1 }
                             @{ $happened{'worker killed'} }) }
        @{ $w->{answers} };

    next if "@{[sort @told]}" eq "@{[sort @logged]}";
    next if $more && @logged <= @told + $more;
    next if @logged < @told && ($less || $unended{ $w->{n} });

    push @unanswered, "webhook $w->{n}: told @told, logged @logged";
}

nothing('the access log has each answer, and no other', @unanswered);


# ---- identities

my (@created, @repeated);
my (%puts, %made);

for my $e (@exchanges) {
    next if !defined $e->{device};

    # who is told that the device is not there, or is not told whether it is,
    # may ask for it again

    if ($e->{op} ne 'create') {
        $puts{ $e->{device} }{touched} = 1 if defined $e->{fault}
            && ($e->{op} eq 'get'
                || $e->{fault} =~ /^(?:404001|401 not there)/);
        next;
    }

    my $last = $puts{ $e->{device} };

    $count{'creations asked for'}++;
    $made{ $e->{device} }++ if $e->{accepted};

    push @repeated, "$e->{device} at "
        . sprintf '%.3f s', $e->{time} - $happened{start}[0]
        if $last && $last->{time} && !$last->{touched}
           && !within($e->{time}, $DEADLINE + 5,
                      @{ $happened{'worker killed'} })
           && !grep { $_ > $last->{time} - 1 && $_ < $e->{time} }
              @{ $deleted{ $e->{device} } // [] };

    # a key that is refused is a fault, too
    $puts{ $e->{device} } = {
        time => $e->{time},
        touched => defined $e->{fault} || $e->{status} == 401,
    };
}

for my $device (sort keys %made) {
    my $times = 1 + @{ $deleted{$device} // [] };

    $times = @{ $deleted{$device} // [] }
        if grep { $_ eq $device } @exist;

    push @created, "$device: $made{$device} times"
        if $made{$device} > $times;
}

$count{'identities created'} = sum0(values %made);

nothing('each device is created once', @created);
nothing('and asked for again only after a fault', @repeated);


# ---- the error log

my $log = $t->error_log(no_debug => 1);
my @lines = split /^/m, $log;
my (@secrets, @alerts, @crits, @closed, @untold, %failures);

# a key is 44 characters of base64
for ($log =~ m{([A-Za-z0-9+/]{43}=)}g) {
    push @secrets, $secret{$_} if $secret{$_};
}

push @secrets, grep { /SharedAccess|%3D&se=|sig=|\Q$MARKER\E/ } @lines;

for (@lines) {
    push @alerts, $_ if /\[(?:alert|emerg)\]/
        && !/worker process \d+ exited on signal 9/;
    push @crits, $_ if /\[crit\]/ && !/ refuses every key | lacks the right /;
    $count{"gates that $1"}++ if /\[warn\].*iothub gate (closed|opened)/;
    push @closed, $_ if /gate closed, .* gate: send, result: credentials/
        && !within(moment($_), 30, @{ $happened{'keys refused'} // [] });
}


# the time of a line, in whole seconds

sub moment {
    my ($y, $mon, $d, $h, $min, $s) = $_[0] =~ m{^(\d+)/(\d+)/(\d+)
                                                 \ (\d+):(\d+):(\d+)}x;

    return mktime($s, $min, $h, $d, $mon - 1, $y - 1900, 0, 0, -1) + 1;
}

nothing('no secret and no payload in the error log', @secrets);
nothing('no alert', @alerts);
nothing('nothing critical but refused credentials', @crits);
nothing('messages are held back for their keys only while these are refused',
        @closed);


# the line of a failed event, and what it holds

my $FAILED = qr{
    \[error\] .* iothub\ event\ not\ delivered,
    \ hub:\ "(?<hub>\w+)",\ device:\ "(?<device>[^"]*)",\ step:\ (?<step>\w+),
    \ result:\ (?<result>\w+),\ hub\ status:\ (?<status>\d+),
    \ hub\ error:\ "(?<error>[^"]*)",
    \ hub\ request\ id:\ "(?<request_id>[^"]*)",\ tries:\ (?<tries>\d+):
    \ (?<why>.+?),\ client:\ .*
    \ request:\ "POST\ /\w+/(?<n>\d+)\ HTTP
}x;

my @after = grep { /iothub call ended after the deadline/ } @lines;
my %ended;

for (@after) {
    $ended{$1}++ if m{request: "POST /\w+/(\d+) };
}

for (grep { /iothub event not delivered/ } @lines) {
    if ($_ !~ $FAILED) {
        push @untold, "what is this: $_";
        next;
    }

    my %line = %+;
    my $w = $webhooks[ $line{n} ];
    my $e = $by_request_id{ $line{request_id} };

    push @{ $failures{ $line{n} } }, $line{result};

    push @untold, "another device, hub or result: $_"
        if $line{device} ne $w->{device} || !$STATUS{ $line{result} }
           || $w->{uri} !~ m{^/$line{hub}/};

    # what the hub's support is asked for is an exchange of this device

    push @untold, "an exchange of another: $_"
        if $line{request_id} ne ''
           && (!$e || $e->{device} ne $line{device});

    push @untold, "the hub said $e->{status} $e->{error}: $_"
        if $line{request_id} ne '' && $e && $line{status} > 0
           && $e->{status} && ($e->{status} != $line{status}
           || $line{error} ne '' && $line{error} ne ($e->{error} // ''));
}

for my $w (@webhooks) {
    my @told = grep { $_ ne 'delivered' } map { told($_) } @{ $w->{answers} };
    my @logged = @{ $failures{ $w->{n} } // [] };

    next if "@{[sort @told]}" eq "@{[sort @logged]}";
    next if @logged > @told
        && grep { ($_->{by} // '') eq 'the kill' } @{ $w->{cuts} };

    push @untold, "webhook $w->{n}: told @told, logged @logged";
}

nothing('each failure has its line in the error log', @untold);


# ---- the table

$count{webhooks} = $COUNT;
$count{devices} = $DEVICES;
$count{'hub calls'} = @exchanges;
$count{'sends'} = @sends;
$count{'messages'} = grep { $_->{accepted} } @sends;
$count{'faults'} = grep { defined $_->{fault} } @exchanges;
$count{'faults of sends, %'} = sprintf '%.1f',
    100 * (grep { defined $_->{fault} } @sends) / @sends;
$count{'kinds of faults'} = grep { $_->{hits} } @fired;
$count{'kinds of faults that did not come up'} = grep { !$_->{hits} } @fired;
$count{'seconds'} = sprintf '%.1f', $happened{end}[0] - $happened{start}[0];
$count{'longest answer, s'} = sprintf '%.3f', delete $count{longest};
$count{"told: $_"} = $told{$_} for keys %told;

my $table = join '', map { sprintf "%8s  %s\n", $count{$_}, $_ }
    sort keys %count;

if ($LONG || !Test::More->builder->is_passing) {
    diag("IOTHUB_TEST_SEED=$SEED\n$table");

} else {
    note($table);
}

$t->done;
