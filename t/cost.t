#!/usr/bin/perl

# What a webhook may cost, in instructions: so many times what nginx's plain
# proxy_pass needs for the same hub calls.  The bounds are some 7 % above what
# was measured, so that no change makes each webhook 10 % more expensive
# unnoticed.  Who has made it cheaper lowers them.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;
use IoTHubTest::Cost;

plan skip_all => 'only the instructions of an optimised build count'
    if $ENV{IOTHUB_TEST_VALGRIND} || ($ENV{IOTHUB_TEST_MODULE} // 'x') eq '';
plan skip_all => 'there is no callgrind' if !grep { -x "$_/valgrind" }
    split /:/, $ENV{PATH};

my $t = IoTHubTest->new;
my $cost = IoTHubTest::Cost->new($t);

my $one = $cost->per_webhook($cost->proxy);
my $two = $cost->per_webhook($cost->proxy(2));

# name, floor, bound, configuration, options
my @cases = (
    ['known devices', $one, 1.64, $cost->module],
    ['new devices, created first', $two, 1.57,
     $cost->module(register => 'first'), devices => 0],
    ['nested JSON', $one, 1.68, $cost->module, more => ',"more":{"a":[1,2]}'],
    ['JSON that jansson reads', $one, 3.42, $cost->module,
     more => ',"more":"\\u00e9"'],
    ['100 hubs', $one, 1.71, $cost->module(hubs => 100,
     http => 'map $iothub_event $hub { default hub77; }', pass => '$hub')],
);

for my $case (@cases) {
    my ($name, $floor, $bound, $conf, %options) = @$case;
    my $n = $cost->per_webhook($conf, %options);
    my $ratio = $n / $floor;

    note sprintf '%s: %.0f, proxy_pass: %.0f, ratio: %.2f', $name, $n, $floor,
        $ratio;
    cmp_ok($ratio, '<=', $bound, $name);
    cmp_ok($ratio, '>=', 1, "$name: something was counted");
}

$cost->stop;
$t->done;
