#!/usr/bin/perl

# A batch whose rest ends before it was sent: the requests of one device come
# one after the other, and what one of them ends with may end the others at
# once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP;
use Test::More;
use IoTHubTest;
use IoTHubTest::HTTP qw(compose converse);

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

$t->nginx(<<'CONF', workers => 1);

    %%IOTHUB%%

    iothub_secret off;
    client_max_body_size 4m;
    client_body_buffer_size 2m;
    iothub_field $id json:/id;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location = /each {
            iothub_source custom;
            iothub_device_id $id;
            iothub_each json:/events;
            iothub_pass contoso;
        }
    }

CONF

my $json = JSON::PP->new->canonical;


sub events {
    return compose(POST => '/each', keepalive => 1,
        headers => { 'Content-Type' => 'application/json' },
        body => $json->encode({ events => [@_] }));
}

# three requests of a; while the first one is on its way, b's daily quota is
# found to be spent, and with it the hub's

$hub->add('a', 'b');
$hub->faults([
    { op => 'send|batch', device => 'a', delay => 1500, times => 1 },
    { op => 'send', device => 'b', status => 403, code => 403002,
      error => 'IotHubQuotaExceeded' },
]);

my $big = 'x' x 150_000;
my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                   PeerPort => $t->port);

print $socket events(map { { id => 'a', v => $big, n => $_ } } 1 .. 3);
$socket->flush;
ok($hub->wait_for(send => 1, 10, device => 'a'), 'one of three');

is(converse(events({ id => 'b', v => 1 }), port => $t->port)->{status}, 503,
   'another device: the quota is spent');

my $several = converse('', socket => $socket, timeout => 20);

is($several->{status}, 503, 'the batch failed');

my $problem = decode_json($several->{body});

is($problem->{code}, 'quota', 'because of the quota');
like($problem->{detail}, qr/\b1 of 3\b/, 'after one event');
is(scalar $hub->messages(device => 'a'), 1, 'which the hub has');
is(scalar $hub->journal(device => 'a', op => qr/send|batch/), 1,
   'and the others were not sent');

$t->done;
