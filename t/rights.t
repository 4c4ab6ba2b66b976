#!/usr/bin/perl

# A policy without the right to read the registry: devices that are disabled
# cannot be told from keys that are refused, and others must not suffer for it.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use Time::HiRes qw(sleep);
use IoTHubTest;

my $t = IoTHubTest->new(allow => [qr/lacks the right registry read/]);
my $hub = $t->hub(tls => 0, rights => 'RegistryWrite,DeviceConnect');

$t->nginx(<<'CONF');

    %%IOTHUB%%

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        location / { iothub_pass contoso; }
    }

CONF


sub status {
    return $t->post('/', "event=e&coreid=$_[0]&data=1")->{status};
}


$hub->add(map { "d$_" } 1 .. 3);
$hub->disable($_) for qw(d1 d2);

for my $answer (401, 403) {
    $hub->settings({ disabled_status => $answer });

    is(status('d3'), 204, "$answer: a device that is enabled");

    # the time between them is what is tested
    for my $device (qw(d1 d2)) {
        sleep 0.5;
        isnt(status($device), 204, "$answer: $device is disabled");
    }

    sleep 0.5;
    is(status('d3'), 204, "$answer: the other one is not held back");
}

is(scalar $t->log_lines(qr/refuses every key/), 0, 'the keys are fine');

$t->done;
