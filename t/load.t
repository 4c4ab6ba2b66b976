#!/usr/bin/perl

# Many webhooks of many devices over two workers, and a reload in the middle:
# every sender that was told so has its message in the hub, under its device
# and with its body, and the workers do not grow.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub;

# the sanitizers are slow, and keep freed memory for a while

my $slow = $t->is_static || $ENV{IOTHUB_TEST_VALGRIND};
my $COUNT = $slow ? 1000 : 10_000;
my $DEVICES = $COUNT / 10;
my $GROWTH = $slow ? undef : 512;   # KB of a worker

my @devices = map { sprintf 'device-%04d', $_ } 1 .. $DEVICES;

$hub->add($_) for map { [@devices[$_ * 50 .. $_ * 50 + 49]] }
    0 .. $DEVICES / 50 - 1;

$t->nginx(<<'CONF', error_level => 'notice');

    %%IOTHUB%%

    iothub_secret off;
    access_log off;
    keepalive_requests 200;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;
        location / { iothub_pass contoso; }
    }

CONF

my $sent = 0;


# deliver(NAME, COUNT, %options): so many webhooks, and where they got to

sub deliver {
    my ($name, $count, %o) = @_;

    my (@webhooks, %want);

    for my $n ($sent + 1 .. $sent + $count) {
        my $device = $devices[$n % $DEVICES];
        my $id = sprintf 'event-%d-%d', $n, $$;

        $want{$id} = "$device {\"data\":\"value $n\",\"device_id\":\"$device\","
            . "\"event\":\"temp\",\"published_at\":\"2026-11-23T10:00:00Z\"}";

        push @webhooks, [POST => '/',
            body => "event=temp&coreid=$device&data=value+$n&event_id=$id"
                . '&published_at=2026-11-23T10:00:00Z',
            headers => { 'Content-Type' =>
                         'application/x-www-form-urlencoded' }];
    }

    $sent += $count;
    $hub->forget;

    my @answers = $t->parallel(\@webhooks, 64, keepalive => 1, %o);

    is((grep { $_->{status} == 204 } @answers), $count,
       "$name: $count times 204");

    # the messages, by their ids: 204 or not, no other may be there

    my (%got, $strange);

    for ($hub->journal(op => 'send', accepted => 1)) {
        my $id = $_->{headers}{'iothub-messageid'} // '';

        $got{$id}++;
        $strange //= "$id: $_->{device} $_->{body}"
            if "$_->{device} $_->{body}" ne ($want{$id} // '');
    }

    my @ids = sort keys %want;

    is((grep { !$got{ $ids[$_] } && $answers[$_]{status} == 204 } 0 .. $#ids),
       0, "$name: none is lost");
    is((grep { ($got{$_} // 0) > 1 } @ids), 0, "$name: none is there twice");
    is($strange, undef, "$name: each under its device, with its body");
    is((grep { $_->{op} ne 'send' } $hub->journal(brief => 1)), 0,
       "$name: the registry is left alone");
}


# KB of each worker

sub memory {
    return map { $t->_slurp("/proc/$_/status") =~ /^VmRSS:\s+(\d+)/m }
        $t->worker_pids;
}

deliver('warm-up', $COUNT / 2);

my @before = memory();

deliver('load', $COUNT / 2);

my @after = memory();

is(scalar @after, 2, 'two workers');

SKIP: {
    skip 'sanitizers', 2 unless defined $GROWTH;

    cmp_ok($after[$_] - $before[$_], '<', $GROWTH,
           "worker $_ does not grow ($before[$_] KB before)") for 0, 1;
}

my %old = map { $_ => 1 } $t->worker_pids;

deliver('reload', $COUNT, on_answer => sub {
    $t->signal('HUP') if $_[2] == $COUNT / 2;
});

ok($t->_until(20, sub { !grep { $old{$_} } $t->worker_pids }),
   'the old workers are gone');
is(scalar(() = $t->worker_pids), 2, 'two workers');
is(scalar $t->log_lines(qr/\[(?:error|warn)\]/), 0, 'no word in the log');

$t->done;
