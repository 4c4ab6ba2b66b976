#!/usr/bin/perl

# A young identity: the hub has created it and takes no messages for it yet,
# or its creation succeeded and the answer said otherwise, or another gateway
# creates it at the same moment.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $second = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

my $server = <<'CONF';

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass contoso; }

        location /soon {
            iothub_deadline 2s;
            iothub_pass contoso;
        }
CONF

$second->nginx($hub->block . "$server }\n");

# requests to the second gateway go through the first, so that they are sent
# at the same time

my $port = $second->port;

$t->nginx($hub->block . $server . <<"CONF");

        location /second { proxy_pass http://127.0.0.1:$port/; }
    }

CONF


sub webhook {
    my ($device, $uri) = @_;

    return [POST => $uri // '/', body => "event=temp&coreid=$device&data=1",
            headers => { 'Content-Type' =>
                         'application/x-www-form-urlencoded' }];
}


sub calls {
    return join ', ', map { "$_->{op} $_->{status}" }
        $hub->journal(device => $_[0]);
}


# the different values of a header in all tries of a device's message

sub ids {
    my %ids = map { $_->{headers}{'iothub-messageid'} => 1 }
        $hub->journal(device => $_[0], op => 'send');

    return keys %ids;
}


# ---- slow propagation

$hub->settings({ settle => 1500 });

my ($answer) = $t->parallel([webhook('s1')], 1);

is($answer->{status}, 204, 'slow propagation: delivered');
like(calls('s1'), qr/^send 404, create 200(, send 404){2,4}, send 204$/,
     'slow propagation: created once, then only sent');
is(scalar ids('s1'), 1, 'slow propagation: with the same message id');
is(scalar $hub->messages(device => 's1'), 1, 'slow propagation: one message');
cmp_ok($answer->{time}, '>=', 1.5, 'slow propagation: not before it is there');

# webhooks that come meanwhile do not create it either

my @answers = $t->parallel([map { webhook('s2') } 1 .. 20], 5);

is((grep { $_->{status} == 204 } @answers), 20, 'more webhooks: delivered');
is(scalar $hub->journal(device => 's2', op => 'create'), 1,
   'more webhooks: created once');
is(scalar $hub->journal(device => 's2', op => 'get'), 0,
   'more webhooks: and not asked about');
is(scalar $hub->messages(device => 's2'), 20, 'more webhooks: a message each');


# ---- never there, or not before the deadline

$hub->settings({ settle => 3_600_000 });

($answer) = $t->parallel([webhook('s3', '/soon')], 1);

is($answer->{status}, 503, 'too slow: 503');
is(decode_json($answer->{body})->{code}, 'unavailable',
   'too slow: unavailable');
ok($answer->{headers}{'retry-after'}, 'too slow: Retry-After');
cmp_ok($answer->{time}, '<', 2, 'too slow: no wait that leads past the '
       . 'deadline');
like(calls('s3'), qr/^send 404, create 200(, send 404)+$/,
     'too slow: created once');

# created, and deleted again while it settles

$hub->settings({ settle => 0 });
$hub->faults([{ op => 'send', device => 's4', error => 'DeviceNotFound' }]);
$hub->remove('s3');
$hub->forget;

@answers = $t->parallel([webhook('s3'), webhook('s4')], 2);

is($answers[0]{status}, 204, 'deleted: delivered');
is(calls('s3'), 'send 404, ' x 6 . 'get 404, create 200, send 204',
   'deleted: asked about once, and created again');
is($answers[1]{status}, 503, 'never there: 503');
is(decode_json($answers[1]{body})->{code}, 'unavailable',
   'never there: unavailable');
is(calls('s4'), 'send 404, create 200, ' . 'send 404, ' x 6 . 'get 200',
   'never there: five more tries, and one question');
$hub->faults([]);


# ---- created, whatever the answer said

$hub->faults([{ op => 'create', device => 'a1', accept => 1, status => 500,
                times => 1 },
              { op => 'create', device => 'a2', accept => 1,
                close => 'before', times => 1 },
              { op => 'create', device => 'a3', accept => 1,
                close => 'middle', times => 1 }]);

for my $device (qw(a1 a2 a3)) {
    my ($answer) = $t->parallel([webhook($device)], 1);

    is($answer->{status}, 204, "$device: delivered");
    like(calls($device), qr/^send 404, create [50]+, create 409, get 200, send/,
         "$device: the repeat finds it");
    is(scalar ids($device), 1, "$device: with the same message id");
}

# and it is there, although the registry does not say what became of it

$hub->faults([{ op => 'get', device => 'b1', status => 500 },
              { op => 'get', device => 'b2', close => 'middle' },
              { op => 'get', device => 'b3', code => 404012 },
              map { { op => 'create', device => $_, accept => 1,
                      status => 500, times => 1 } } qw(b1 b2 b3)]);

for my $device (qw(b1 b2 b3)) {
    my ($answer) = $t->parallel([webhook($device)], 1);

    is($answer->{status}, 204, "$device: delivered");
    like(calls($device), qr/^send 404, create 500, create 409(, get \d+)+, (?x:
         )send 204$/, "$device: without an answer to the question");
}

$hub->faults([]);


# ---- two gateways

for my $settle (0, 400) {
    my $device = "two$settle";
    my $name = "two gateways, settling for $settle ms";

    $hub->settings({ settle => $settle });
    $hub->faults([{ op => 'create', delay => 200 },
                  { op => 'send', device => $device, times => 20,
                    error => 'DeviceNotFound' }]);

    my @answers = $t->parallel([map { webhook($device, $_) }
                                ('/', '/second') x 10], 20);

    is((grep { $_->{status} == 204 } @answers), 20, "$name: delivered");

    my @put = map { $_->{status} } $hub->journal(device => $device,
                                                 op => 'create');

    is_deeply(\@put, [200, 409], "$name: one creates, one finds it");
    is(scalar $hub->messages(device => $device), 20, "$name: a message each");
    is(scalar ids($device), 20, "$name: an id each");
}

$t->done;
