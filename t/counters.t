#!/usr/bin/perl

# The counters of iothub_status, against what the simulator and the senders
# know.  Webhooks of all kinds come, a third of the hub's answers are wrong,
# late or lost, two workers become four by a reload in the middle: all is
# counted, and once.  A worker that is killed takes nothing with it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use List::Util qw(sum0);
use Test::More;
use IoTHubTest;
use IoTHubTest::Faults qw(share_out word_faults);

my $SEED = $ENV{IOTHUB_TEST_SEED} // int rand 2 ** 31;

srand $SEED;
note "IOTHUB_TEST_SEED=$SEED";

my $t = IoTHubTest->new(crit => 0,
                        allow => [qr/worker process \d+ exited on signal 9/]);
my $hub = $t->hub(tls => 0, args => ['--seed', $SEED],
                  settings => { settle => 0 });
my $count = $t->is_static || $ENV{IOTHUB_TEST_VALGRIND} ? 300 : 900;


# Two hubs at one host.  The zone of one has a slot for each worker that it
# began with; that of the other is so small that all of them share one.

sub conf {
    my $more = 'register missing rate=off; proxy_read_timeout 800ms;';

    return "\n" . $hub->block("zone 1m; $more") =~ s/contoso/wide/r . "\n"
        . $hub->block("zone 128k; $more") =~ s/contoso/narrow/r . <<'CONF';

    iothub_secret off;
    iothub_deadline 3s;
    iothub_match temp;

    iothub_field $device json:/device;

    log_format pid '$pid';
    access_log %%TESTDIR%%/access.log pid;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;

        location = /status { iothub_status; access_log off; }
        location = /metrics { iothub_status prometheus; access_log off; }

        location = /particle/wide { iothub_pass wide; }
        location = /particle/narrow { iothub_pass narrow; }

        location = /custom/wide {
            iothub_pass wide;
            iothub_source custom;
            iothub_event temp;
            iothub_device_id $device;
        }

        location = /each/narrow {
            iothub_pass narrow;
            iothub_source custom;
            iothub_event temp;
            iothub_each json:/events;
            iothub_device_id $device;
        }
    }
CONF
}


# ---- the webhooks: a result is here if the gateway knows it by itself

my @kinds = (
    { weight => 8, hub => 'wide', source => 'particle',
      body => 'event=temp&data=1&coreid=%s' },
    { weight => 8, hub => 'narrow', source => 'particle',
      body => 'event=temp&data=1&coreid=%s' },
    { weight => 4, hub => 'wide', source => 'custom', large => 1,
      body => '{"device":"%s","data":"' . 'x' x 5000 . '"}' },
    { weight => 2, hub => 'narrow', source => 'custom', events => 3,
      uri => '/each/narrow', body => '{"events":[{"device":"%s"},'
        . '{"device":"%1$s"},{"device":"%1$s"}]}' },
    { weight => 1, hub => 'wide', source => 'particle',
      result => 'filtered', body => 'event=other&data=1&coreid=%s' },
    { weight => 1, hub => 'narrow', source => 'particle',
      result => 'rejected', body => 'event=temp&data=1&coreid=/%s' },
    { weight => 1, hub => 'wide', source => 'custom',
      result => 'malformed', body => '{"%s' },
);

my @drawn = map { ($_) x $_->{weight} } @kinds;
my @webhooks = map { webhook(%{ $drawn[rand @drawn] }) } 1 .. $count;


sub webhook {
    my (%kind) = @_;

    $kind{uri} //= "/$kind{source}/$kind{hub}";
    $kind{body} = sprintf $kind{body}, "$kind{hub}-" . int rand 60;
    $kind{type} = $kind{body} =~ /^\{/ ? 'application/json'
        : 'application/x-www-form-urlencoded';

    return \%kind;
}


# ---- the faults: answers of each status, and answers that do not come

my @lost = map { { %$_, weight => 8 } } (
    { name => 'lost at the request', close => 'request' },
    { name => 'lost', close => 'before' },
    { name => 'lost, accepted', close => 'before', accept => 1 },
    { name => 'lost by a reset', reset => 1 },
    { name => 'lost by half', raw => "HTTP/1.1 204 No Content\r\nContent-Le" },
    { name => 'no HTTP', raw => "hello\r\n" },
    { name => 'late', delay => 1500 },
    { name => 'late, accepted', delay => 1500, accept => 1 },
);

my @throttled = map { { code => $_, weight => 2 } } 429001, 429002;

$hub->add(map { ("wide-$_", "narrow-$_") } 0 .. 19);
$hub->disable("wide-$_") for 0 .. 2;

# a batch that is refused goes again, one by one, as so many deliveries
my @passing = grep { ($_->{code} // $_->{status} // 0) =~ /^5/ } word_faults();

$hub->faults([
    share_out(0.33, { op => 'batch' }, @passing, @lost, @throttled),
    map { share_out(0.33, { op => $_ }, word_faults(), @lost, @throttled) }
        qw(send create get)
]);


# ---- the run

sub status { return decode_json($t->get('/status')->{body})->{hubs} }

$t->nginx(conf(), workers => 2);

my %old = map { $_ => 1 } $t->worker_pids;
my @answers = $t->parallel(
    [map { [POST => $_->{uri}, body => $_->{body},
            headers => { 'Content-Type' => $_->{type} }] } @webhooks],
    24, on_answer => sub {
        my (undef, undef, $done) = @_;

        return if $done != int $count / 2;

        $t->write_file('nginx.conf', $t->_conf(conf(), workers => 4));
        $t->signal('HUP');
    });

ok($t->_until(60, sub { !grep { $old{$_} } $t->worker_pids }),
   'the old workers have ended');

my %pids = map { $_ => 1 } $t->read_file('access.log') =~ /^(\d+)$/mg;

cmp_ok(scalar(grep { $old{$_} } keys %pids), '==', 2, 'two workers');
cmp_ok(scalar(grep { !$old{$_} } keys %pids), '>', 2, 'then more than two');


# ---- what the senders and the simulator know

my %expected;

sub expect {
    my ($name, $n, @path) = @_;
    my $at = \$expected{$name};

    $at = \$$at->{$_} for @path;
    $$at += $n;
}

for my $i (0 .. $#webhooks) {
    my %webhook = %{ $webhooks[$i] };
    my $result = $webhook{result}
        // ($answers[$i]{status} == 204 ? 'delivered'
            : decode_json($answers[$i]{body})->{code});

    expect($webhook{hub}, 1, webhooks => $webhook{source}, $result);
    expect($webhook{hub}, $webhook{events} // 1, events => $result);
    expect($webhook{hub}, 1, deliveries => $result) if !$webhook{result};
}


my %operation = (send => 'send', batch => 'send', create => 'create',
                 get => 'ask');
my %word = map { $_ => 1 } 200, 201, 204, 400, 401, 403, 404, 408, 409, 412,
    413, 415, 429, 500, 502, 503, 504;

# of a call in the journal; the registry is waited for longer than for messages

sub outcome {
    my ($call) = @_;
    my $fault = $call->{fault} // '';

    return 'none' if $fault =~ /^(?:lost|no HTTP)/
        || $fault =~ /^late/ && $operation{ $call->{op} } eq 'send';

    return $word{ $call->{status} } ? $call->{status} : 'other';
}


my ($status, @calls);

# calls may outlive their webhooks

ok($t->_until(30, sub {
    $status = status();
    @calls = $hub->journal;

    @calls == sum0(map { values %$_ } map { values %{ $_->{calls} } }
                   values %$status);
}), 'as many calls as the hub has seen')
    or diag 'the hub has seen ' . @calls;

for my $call (@calls) {
    my ($name) = $call->{device} =~ /^(\w+)/;
    my ($operation, $outcome) = ($operation{ $call->{op} }, outcome($call));

    expect($name, 1, calls => $operation, $outcome);

    # on a connection that was kept, nginx itself repeats what is lost
    expect($name, 1, 'repeats') if ($call->{fault} // '') =~ /^lost/
        && $call->{reqn} > 1;

    expect($name, 1, 'created')
        if $operation eq 'create' && $outcome eq '200';

    next if $operation ne 'send' || $outcome ne '204';

    # blocks of 4 KB: of a batch, each message's own
    expect($name, $call->{op} eq 'batch' ? 3
                  : length $call->{body} > 4096 ? 2 : 1, 'blocks');
}

expect($_, 1, 'retries')
    for $t->error_log =~ /iothub call to be repeated, hub: "(\w+)"/g;


# ---- is what has been counted

my %samples = $t->get('/metrics')->{body} =~ /^([^#\s]\S*\{.*\}) (\S+)$/mg;

# those that are not zero, by the values of their labels

sub samples {
    my ($metric, $name) = @_;
    my %found;

    for (keys %samples) {
        next if !/^\Q$metric\E\{hub="\Q$name\E",(.*)\}$/ || !$samples{$_};

        $found{ join ' ', $1 =~ /="([^"]*)"/g } = $samples{$_};
    }

    return \%found;
}

sub flat {
    my ($counts) = @_;

    return { map {
        my $name = $_;

        ref $counts->{$name}
            ? map { ("$name $_" => $counts->{$name}{$_}) }
                  keys %{ $counts->{$name} }
            : ($name => $counts->{$name});
    } keys %$counts };
}


for my $name (qw(wide narrow)) {
    my %has = %{ $status->{$name} };
    my %want = %{ $expected{$name} };
    my $repeats = $want{repeats} // 0;

    $want{calls}{ask} //= {};

    for (qw(webhooks events deliveries calls)) {
        is_deeply($has{$_}, $want{$_}, "$name: $_, as JSON");
        is_deeply(samples("iothub_${_}_total", $name), flat($want{$_}),
                  "$name: $_, for Prometheus");
    }

    cmp_ok($repeats, '>', 0, "$name: nginx has repeated calls");
    is($has{retries}, $want{retries} + $repeats, "$name: retries");
    is($has{message_blocks}, $want{blocks}, "$name: blocks of messages");
    is($has{identities}{created}, $want{created}, "$name: identities");

    is($has{delivery_seconds}{count}, sum0(values %{ $want{deliveries} }),
       "$name: time of each delivery");
    is(sum0(map { $_->{count} } values %{ $has{call_seconds} }) + $repeats,
       sum0(map { values %$_ } values %{ $want{calls} }),
       "$name: time of each call, with its repeats by nginx");
}


# ---- a worker that is killed

sub counters {
    my ($hubs) = @_;

    return { map {
        my %of = %{ $hubs->{$_} };

        $_ => [@of{qw(webhooks events deliveries calls retries
                      message_blocks)}, $of{identities}{created}];
    } keys %$hubs };
}

my ($killed) = $t->worker_pids;

kill KILL => $killed;
ok($t->_until(30, sub {
    my @now = $t->worker_pids;

    @now == 4 && !grep { $_ == $killed } @now;
}), 'a worker is killed, and replaced');
is_deeply(counters(status()), counters($status), '... its counts are there');

$t->post('/particle/narrow', 'event=other&data=1&coreid=narrow-0');
is(status()->{narrow}{webhooks}{particle}{filtered}, 1, '... all go on');

$t->done;
