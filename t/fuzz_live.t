#!/usr/bin/perl

# A hub that answers with anything: through it all, nginx stays up and in
# shape, every sender gets one answer in time, and none is told of a success
# that the hub did not give.
#
# Everything follows from a seed.  What failed is printed with its bytes, and
# comes again with the same seed:
#
#   IOTHUB_TEST_FUZZ_SECONDS   how long (default: 4)
#   IOTHUB_TEST_FUZZ_SEED      default: the time
#   IOTHUB_TEST_FUZZ_WEBHOOK   only this webhook, a number
#   IOTHUB_TEST_FUZZ_HUB       which is for this hub, h1 to h96

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::Fuzz;
use IoTHubTest::Storm;

my $seconds = $ENV{IOTHUB_TEST_FUZZ_SECONDS} // 4;
my $seed = $ENV{IOTHUB_TEST_FUZZ_SEED} // int time;
my ($only, $only_hub) = @ENV{qw(IOTHUB_TEST_FUZZ_WEBHOOK
                                IOTHUB_TEST_FUZZ_HUB)};

my $HUBS = 96;
my ($DEADLINE, $READ_TIMEOUT) = (0.5, 0.25);

# between two looks into the error log, in seconds
my $LOOK = 5;

my $t = IoTHubTest->new(crit => 0);

my $valgrind = $ENV{IOTHUB_TEST_VALGRIND};

# KB that a worker may grow; the sanitizers need some themselves
my $GROWTH = $valgrind ? 50_000 : $t->is_static ? 8_000 : 2_000;

# so many that there are always some whose gates are open
my @hubs = map { "h$_" } 1 .. $HUBS;

my $storm = IoTHubTest::Storm->new(
    fuzz => IoTHubTest::Fuzz->new("$FindBin::Bin/fuzz/corpus/live"),
    seed => $seed, hubs => \@hubs, deadline => $DEADLINE,
    read_timeout => $READ_TIMEOUT, concurrency => 128,
    slack => $valgrind ? 30 : 3,
    first => defined $only ? $only - 1 : 0);


# ---- nginx

# block(NAME, N): a hub; they differ in what may matter

sub block {
    my ($name, $n) = @_;

    my $register = (qw(missing first first off))[$n % 4];
    my $buffer = (qw(4k 1k 16k))[$n % 3];
    my $port = $storm->port;

    return <<"BLOCK";
    iothub $name {
        hostname $name.azure-devices.net;
        address 127.0.0.1:$port;
        policy gateway;
        key_file keys;
        tls off;
        zone 88k;
        register $register rate=off;
        proxy_read_timeout ${\ ($READ_TIMEOUT * 1000)}ms;
        proxy_buffer_size $buffer;
        proxy_buffers 8 $buffer;
        keepalive 2;
        keepalive_timeout 1s;
    }
BLOCK
}

$t->write_file('keys', join '', map { $_ x 43 . "=\n" } qw(A E));

# what the sanitizers keep of freed memory would look like a leak

my %env = IoTHubTest::_sanitizer_env(1);

$env{ASAN_OPTIONS} .= ':quarantine_size_mb=8:thread_local_quarantine_size_kb=64'
    unless $ENV{ASAN_OPTIONS};

my $blocks = join '', map { block($hubs[$_], $_) } 0 .. $#hubs;

$t->nginx(<<"HEAD" . block('calm', 0) . <<'CONF', env => \%env);
events { worker_connections 2048; }
http {
$blocks
HEAD

    iothub_secret off;
    keepalive_requests 200;

    # every variable is made, and none kept
    log_format all '$iothub_device_id $iothub_result $iothub_detail'
                   ' $iothub_hub $iothub_identity $iothub_hub_status'
                   ' $iothub_hub_error $iothub_hub_request_id $iothub_tries'
                   ' $iothub_delivery_time $iothub_message_id';
    access_log /dev/null all;

    server {
        # shared out by the kernel: both workers get their part
        listen 127.0.0.1:%%PORT_8080%% reuseport backlog=1024;

        location / {
            iothub_deadline 500ms;
            iothub_pass $arg_hub;
        }
    }
}
CONF

my @workers = $t->worker_pids;


# per worker

sub memory {
    return map { $t->_slurp("/proc/$_/status") =~ /^RssAnon:\s+(\d+)/m }
        @workers;
}


sub files {
    return map { scalar(() = glob "/proc/$_/fd/*") } @workers;
}


# ---- the error log, which is too long to keep

my %bad;

# A log is looked into when nobody writes to it any more.

sub look_into_log {
    my $old = $t->dir . '/error.log.old';

    if (-e $old) {
        open my $f, '<:raw', $old or die "$old: $!\n";

        while (defined(my $line = <$f>)) {
            push @{ $bad{alert} }, $line if $line =~ /\[(?:alert|emerg)\]/;
            push @{ $bad{secret} }, $line
                if $line =~ /SharedAccessSignature|A{43}|E{43}/;
            push @{ $bad{bytes} }, $line
                if $line =~ / iothub [^\n]*[^ -~\n]/;
        }

        close $f;
        unlink $old;
    }

    rename $t->dir . '/error.log', $old;
    $t->signal('USR1');
}


my $looked = time;
my @dead;

sub check {
    if (time - $looked >= $LOOK) {
        look_into_log();
        $looked = time;
    }

    @dead = grep { !kill 0, $_ } @workers;

    return @dead > 0 || $bad{alert} || $storm->problems >= 5;
}


# ---- the storm

my @files = files();

# starting is over when nothing changes for a while
for (my $same = 0; $same < 5; sleep 0.1) {
    my @now = files();

    $same = "@now" eq "@files" ? $same + 1 : 0;
    @files = @now;
}

diag("seed $seed, $seconds seconds") if $ENV{IOTHUB_TEST_FUZZ_SECONDS};

my %storm = (port => $t->port, check => \&check);
my $start = time;

$storm->run(%storm, seconds => $seconds * 0.4,
            count => defined $only ? 1 : undef, hub => $only_hub);

my @warm = memory();

$storm->run(%storm, seconds => $seconds * 0.6) unless defined $only || @dead;

my $took = time - $start;
my @after = memory();
my %counts = %{ $storm->counts };
my %words = %{ $storm->words };

is("@dead", '', 'no worker died')
    or diag("the last of the hub's answers:\n",
            map { $storm->describe($_), "\n" } $storm->recent);
is(join("\n\n", $storm->problems), '', 'the senders are told what is true');

note(sprintf '%.0f s, %d webhooks (%.0f/s), %d hub calls, seed %s', $took,
     $counts{webhooks}, $counts{webhooks} / $took,
     $counts{send} + ($counts{put} // 0) + ($counts{get} // 0), $seed);
note(join ', ', map { "$_ $counts{$_}" } sort keys %counts);
note(join ', ', map { "$_ $words{$_}" } sort keys %words);
note(sprintf 'slowest answer %.3f s', $storm->slowest);
note("worker $_: $warm[$_] KB, then $after[$_] KB") for 0 .. $#warm;


# ---- and after it

$storm->calm;
$storm->end;

ok($storm->wait_until(30, sub { "@{[files()]}" eq "@files" }),
   'the workers have as many files open as before')
    or diag("before: @files, now: ", join ' ', files());

SKIP: {
    skip 'a single webhook', 5 if defined $only;

    cmp_ok($after[$_] - $warm[$_], '<', $GROWTH, "worker $_ does not grow")
        for 0, 1;

    cmp_ok($counts{surplus} // 0, '<', 3 + $counts{webhooks} / 1000,
           'a success is hardly ever taken for that of another');
    cmp_ok($words{delivered} // 0, '>', $counts{webhooks} / 20,
           'it was no storm of errors only');
    is(scalar(grep { !$words{$_} } qw(delivered unavailable misconfigured
        refused blocked timeout)), 0, 'there was every weather');
}

$storm->run(port => $t->port, hub => 'calm', seconds => 10, count => 50);

is(($storm->words->{delivered} // 0) - ($words{delivered} // 0), 50,
   'a good hub delivers at once');

my %before = %{ $storm->words };

$storm->run(port => $t->port, hub => $_, seconds => 10, count => 1) for @hubs;

cmp_ok(($storm->words->{delivered} // 0) - $before{delivered}, '>=',
       defined $only ? 1 : $HUBS / 4,
       'and so do those of the storm, if their gates are open');

is(join("\n\n", $storm->problems), '', 'the senders are told what is true');

# what the log before and the one now have

sleep 0.2;
look_into_log() for 1, 2;

is(join('', @{ $bad{alert} // [] }), '', 'no alert in the whole log');
is(join('', @{ $bad{secret} // [] }), '', 'nor a key or token');
is(join('', @{ $bad{bytes} // [] }), '', 'nor what the hub put into a line');

diag("seed $seed") unless Test::More->builder->is_passing;

$t->done;
