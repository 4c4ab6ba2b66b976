#!/usr/bin/perl

# A machine whose clock is wrong, so that the hub refuses its tokens: the log
# names the clock, and how far it is off.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::Clock;
use IoTHubTest::HTTP qw(compose);

my $t = IoTHubTest->new(allow => [qr/\[crit\].* iothub hub "\w+" refuses/]);
my $hub = $t->hub(tls => 0);

# each case in a hub of its own, whose devices' ids start with its name

my @names = qw(behind ahead good near refused odd);

$t->write_file('wrong.key', "bm90IHRoZSBrZXkgb2YgdGhlIHBvbGljeQ==\n");


sub conf {
    return join("\n", map {
        my $block = $hub->block('zone 1m;') =~ s/contoso/$_/r;

        # of these, the clock is not the reason
        $block =~ s/key_file \S+;/key_file wrong.key;/ if /ahead|near|refused/;
        $block;
    } @_) . <<'CONF';

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;
        location ~ ^/(?<name>[a-z]+)$ { iothub_pass $name; }
    }

CONF
}


sub sends {
    my ($test, @devices) = @_;

    my @answers = $test->parallel([map {
        my ($name) = /^([a-z]+)/;

        compose(POST => "/$name", body => "event=temp&coreid=$_&data=1",
            headers => { 'Content-Type' =>
                         'application/x-www-form-urlencoded' });
    } @devices], 10);

    my %words;

    $words{ $_->{status} == 204 ? 'delivered'
        : eval { decode_json($_->{body})->{code} } // $_->{status} }++
        for @answers;

    return \%words;
}


# clocks(TEST, HUB): the lines about its clock, as [seconds, "behind"]

sub clocks {
    my ($test, $name) = @_;

    return map {
        /clock is (\d+) s (behind|ahead of) the hub's/ ? [$1, $2] : ()
    }
        $test->log_lines(qr/\[crit\].* hub "$name" .*\bclock\b/);
}


sub is_said {
    my ($name, $seconds, $which, @lines) = @_;

    is(scalar @lines, 1, "$name: said once");
    is($lines[0][1], $which, "$name: $which");

    # the request has taken its time
    cmp_ok(abs(($lines[0][0] // 0) - $seconds), '<=', 15, "$name: how far");
}


# heals(TEST, NAME, DEVICES): by itself, soon after the clock is right

sub heals {
    my ($test, $name, @devices) = @_;

    ok($test->_until(15, sub {
        return 1 if sends($test, $devices[0])->{delivered};
        sleep 0.25;
        return 0;
    }), "$name, set right: delivered, without a reload");

    is_deeply(sends($test, @devices), { delivered => scalar @devices },
              "$name, set right: all of them");
}

$hub->add(map { my $name = $_; map { "$name$_" } 1 .. 30 } @names, 'moved');
$t->nginx(conf(@names));


# ---- behind the hub: each token has expired when it gets there

my @devices = map { "behind$_" } 1 .. 30;

$hub->settings({ clock_offset => 7200 });
is_deeply(sends($t, @devices), { credentials => 30 },
          'two hours behind: credentials');
is_said('two hours behind', 7200, 'behind', clocks($t, 'behind'));


# ---- ahead of it, and refused for another reason

$hub->settings({ clock_offset => -7200 });
is_deeply(sends($t, map { "ahead$_" } 1 .. 30), { credentials => 30 },
          'two hours ahead, and a wrong key: credentials');
is_said('two hours ahead', 7200, 'ahead of', clocks($t, 'ahead'));
is_deeply(sends($t, map { "good$_" } 1 .. 30), { delivered => 30 },
          'two hours ahead, and a good key: delivered');


# ---- a clock that is not the reason

$hub->settings({ clock_offset => 240 });
is_deeply(sends($t, 'near1'), { credentials => 1 },
          'four minutes behind, and a wrong key: credentials');
is_deeply([clocks($t, 'near')], [], 'four minutes behind: not named');

$hub->settings({ clock_offset => 0 });
is_deeply(sends($t, 'refused1'), { credentials => 1 },
          'a wrong key: credentials');
is_deeply([clocks($t, 'refused')], [], 'a wrong key: the clock is not named');
is(scalar $t->log_lines(qr/hub "refused" refuses every key/), 1,
   'a wrong key: the keys are');


# ---- answers without a time

my @dates = ('', 'yesterday', 'Mon, 99 Nov 2026 99:00:00 GMT', '0', "x" x 500);

$hub->faults([map { { op => 'send', device => 'odd' . ($_ + 1), status => 401,
    headers => { Date => $dates[$_] } } } 0 .. $#dates]);
sends($t, map { 'odd' . ($_ + 1) } 0 .. $#dates);
is_deeply([clocks($t, 'odd')], [], 'no time in the answer: nothing is said');
$hub->faults([]);


# ---- a clock that is set while nginx runs

SKIP: {
    my $moved = IoTHubTest->new(allow => [qr/\[crit\].* hub "moved" refuses/]);
    my $clock = IoTHubTest::Clock->new($moved, wall => 1);

    skip 'needs libfaketime, and no sanitizers', 9 unless $clock;

    $moved->nginx(conf('moved'), workers => 1, $clock->options);

    my @devices = map { "moved$_" } 1 .. 30;

    is_deeply(sends($moved, @devices), { delivered => 30 }, 'a good clock');

    # signed by a clock that is ahead, a token is good for longer

    $clock->advance(86400);
    is_deeply(sends($moved, @devices), { delivered => 30 }, 'a day ahead');

    $clock->advance(-86400);
    is_deeply(sends($moved, @devices), { delivered => 30 }, 'set right');

    # set back, each worker keeps no token that it cannot judge

    $clock->advance(-86400);
    is_deeply(sends($moved, @devices), { credentials => 30 }, 'a day behind');
    is_said('a day behind', 86400, 'behind', clocks($moved, 'moved'));

    $clock->advance(86400);

    heals($moved, 'moved', @devices);
}

# what the hub refused first of all

heals($t, 'behind', @devices);

$t->done;
