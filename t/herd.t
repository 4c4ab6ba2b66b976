#!/usr/bin/perl

# Many first webhooks of one new device at once, over two workers: one of them
# creates the identity, and all are delivered.  If the worker that creates it
# dies, another goes on.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use Test::More;
use Time::HiRes qw(time);
use IoTHubTest;
use IoTHubTest::HTTP qw(compose converse);

my $COUNT = 100;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

# of a creation: longer than it takes all webhooks to come
my $DELAY = $t->is_static || $ENV{IOTHUB_TEST_VALGRIND} ? 1500 : 500;

(my $first = $hub->block('register first;')) =~ s/contoso/first/;

$t->nginx("$first\n" . <<'CONF');

    %%IOTHUB%%

    iothub_secret off;

    log_format worker '$iothub_device_id $pid $iothub_identity';
    access_log %%TESTDIR%%/access.log worker;

    server {
        # shared out by the kernel: both workers get their part
        listen 127.0.0.1:%%PORT_8080%% reuseport;

        location /missing { iothub_pass contoso; }
        location /first { iothub_pass first; }
        location /pid { return 200 $pid; }
    }

CONF


sub webhook {
    my ($uri, $device, $n) = @_;

    return (POST => $uri, body => "event=temp&coreid=$device&data=$n",
            headers => { 'Content-Type' =>
                         'application/x-www-form-urlencoded' });
}


for my $settle (0, 300) {
    for my $register (qw(missing first)) {
        my $device = "$register$settle";
        my $name = "register $register, settling for $settle ms";

        $hub->settings({ settle => $settle });

        $hub->faults([{ op => 'create', delay => $DELAY },
                      { op => 'send', device => $device, times => $COUNT,
                        error => 'DeviceNotFound' }])
            if $register eq 'missing';
        $hub->faults([{ op => 'create', delay => $DELAY }])
            if $register eq 'first';

        my @answers = $t->parallel(
            [map { [webhook("/$register", $device, $_)] } 1 .. $COUNT],
            $COUNT);

        is((grep { $_->{status} == 204 } @answers), $COUNT,
           "$name: $COUNT times 204");

        my @puts = $hub->journal(device => $device, op => 'create');

        is(scalar @puts, 1, "$name: one creation");

        my %got = map { $_->{body} =~ /"data":"(\d+)"/ ? ($1 => 1) : () }
            $hub->journal(device => $device, op => 'send', accepted => 1);

        is(keys %got, $COUNT, "$name: $COUNT messages");
        is(scalar $hub->messages(device => $device), $COUNT,
           "$name: and none of them twice");

        $t->wait_for_log(qr/^$device /, count => $COUNT,
                         file => 'access.log');

        my (%workers, %identity);

        for ($t->log_lines(qr/^$device /, 'access.log')) {
            my (undef, $pid, $identity) = split;

            $workers{$pid}++;
            $identity{$identity}++;
        }

        is(keys %workers, 2, "$name: by two workers");
        is_deeply(\%identity, { CREATED => 1, WAITED => $COUNT - 1 },
                  "$name: one created it, the others waited");
    }
}

$hub->settings({ settle => 0 });


# ---- a creation that takes longer than a lease lasts, which is 5 seconds

$hub->faults([{ op => 'create', device => 'long', delay => 6500 },
              { op => 'send', device => 'long', times => 10,
                error => 'DeviceNotFound' }]);

my @answers = $t->parallel([map { [webhook('/missing', 'long', $_)] }
                            1 .. 10], 10);

is((grep { $_->{status} == 204 } @answers), 10, 'a long creation: delivered');
is(scalar $hub->journal(device => 'long', op => 'create'), 1,
   'a long creation: the lease is kept');


# ---- the worker that creates it is killed

# a connection to each worker, by the worker's pid

sub connections {
    my (%at, @more);

    for (1 .. 100) {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                      PeerPort => $t->port);
        my $answer = converse(compose(GET => '/pid', keepalive => 1),
                              socket => $s);

        $at{ $answer->{body} } ? push @more, $s
                               : ($at{ $answer->{body} } = $s);
        last if keys %at == 2;
    }

    return %at;
}

$t->allow(qr/worker process \d+ exited on signal 9/);

for my $register (qw(missing first)) {
    my $device = "killed-$register";
    my %at = connections();
    my ($doomed, $other) = sort keys %at;

    $hub->faults([{ op => 'create', device => $device, hang => 1,
                    times => 1 }]);

    print { $at{$doomed} } compose(webhook("/$register", $device, 1));
    $at{$doomed}->flush;
    ok($hub->wait_for(create => 1, 10, device => $device),
       "killed, $register: a creation hangs");

    # another waits for it in the other worker

    my $start = time;

    print { $at{$other} } compose(webhook("/$register", $device, 2));
    $at{$other}->flush;

    if ($register eq 'missing') {
        ok($hub->wait_for(send => 2, 10, device => $device),
           "killed, $register: another waits");
    }

    kill KILL => $doomed;

    my $answer = converse('', socket => $at{$other}, timeout => 20);
    my $took = time - $start;

    is($answer->{status}, 204, "killed, $register: the other is delivered");
    cmp_ok($took, '>', 2, "killed, $register: it waited");
    cmp_ok($took, '<', 7.5, "killed, $register: not for long");
    is(scalar $hub->messages(device => $device), 1,
       "killed, $register: one message");

    is(scalar $hub->journal(device => $device, op => 'create'), 2,
       "killed, $register: created by the other")
        if $register eq 'missing';

    $t->_until(10, sub { !grep { $_ == $doomed } $t->worker_pids });
    $t->_until(10, sub { $t->worker_pids == 2 });
}

$t->done;
