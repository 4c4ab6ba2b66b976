#!/usr/bin/perl

# What senders do that nobody would expect, beside the documented webhooks of
# sources.t: numbers in place of texts, texts in place of numbers, times of
# their own, ids that no device can have, JSON that is none.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP;
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

$t->nginx($hub->block('register missing rate=off;') . <<'CONF');

    iothub_secret off;

    iothub_field $own_id     json:/deviceid json:/device json:/dev_eui
                             query:LrnDevEui;
    iothub_field $own_time   json:/received json:/reported_at query:Time;
    iothub_field $own_name   json:/tags/0 default=none;
    iothub_field $repository json:/repository/full_name;
    iothub_field $number     json:/repository/id;
    iothub_field $charge     json:/data/object/metadata/device;
    iothub_field $created    json:/created;
    iothub_field $kind       json:/type;
    iothub_field $data_id    json:/data/id;
    iothub_field $id         json:/id;
    iothub_field $name       json:/name;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        iothub_source custom;

        location = /own {
            iothub_device_id     $own_id;
            iothub_event         $own_name;
            iothub_published_at  $own_time;
            iothub_property      event $iothub_event;
            iothub_pass          contoso;
        }

        location = /github {
            iothub_device_id     $repository;
            iothub_pass          contoso;
        }

        location = /github-id {
            iothub_device_id     repository-$number;
            iothub_event         $http_x_github_event;
            iothub_message_id    $http_x_github_delivery;
            iothub_property      event $iothub_event;
            iothub_pass          contoso;
        }

        location = /stripe {
            iothub_device_id     $charge;
            iothub_event         $kind;
            iothub_published_at  $created;
            iothub_property      event $iothub_event;
            iothub_pass          contoso;
        }

        location = /standard {
            iothub_device_id     $data_id;
            iothub_event         $kind;
            iothub_message_id    $http_webhook_id;
            iothub_published_at  $http_webhook_timestamp;
            iothub_property      event $iothub_event;
            iothub_pass          contoso;
        }

        location = /stripe-test {
            iothub_device_id     stripe;
            iothub_message_id    $id;
            iothub_published_at  $created;
            iothub_pass          contoso;
        }

        location = /svix {
            iothub_device_id     svix;
            iothub_message_id    $http_svix_id;
            iothub_published_at  $http_svix_timestamp;
            iothub_pass          contoso;
        }

        location = /stream {
            iothub_source particle;
            iothub_event $name;
            iothub_pass contoso;
        }

        location = /particle {
            iothub_source particle;
            iothub_pass contoso;
        }

        location = /tts {
            iothub_source the-things-stack;
            iothub_pass contoso;
        }

        location = /sigfox { iothub_source sigfox; iothub_pass contoso; }
        location = /notehub { iothub_source notehub; iothub_pass contoso; }
        location = /chirpstack {
            iothub_source chirpstack;
            iothub_pass contoso;
        }

        location = /cloudevents {
            iothub_source cloudevents;
            iothub_pass contoso;
        }
    }

CONF


# arrives(NAME, URI, BODY, HEADERS, what is expected)

sub arrives {
    my ($name, $uri, $body, $headers, %want) = @_;

    $hub->forget;

    is($t->post($uri, $body, 'Content-Type' => 'application/json',
                %{ $headers // {} })->{status}, 204, "$name: delivered");

    my ($send) = $hub->journal(op => 'send', accepted => 1);
    my %is = (id => $send->{device}, body => $send->{body},
              event => $send->{headers}{'iothub-app-event'},
              time => $send->{headers}{'iothub-creationtimeutc'},
              message_id => $send->{headers}{'iothub-messageid'});

    is($is{body}, $body, "$name: the body");
    is($is{$_}, $want{$_}, "$name: $_") for sort keys %want;
}


sub refused {
    my ($name, $uri, $body, $status, $word, %headers) = @_;

    $hub->forget;

    my $answer = $t->post($uri, $body, 'Content-Type' => 'application/json',
                          %headers);

    is($answer->{status}, $status, "$name: $status");
    is(decode_json($answer->{body})->{code}, $word, "$name: $word");
    is(scalar $hub->journal, 0, "$name: the hub is not called");
}


sub payload {
    my ($file, $name) = @_;

    return (grep { $_->{name} =~ /^\Q$name\E/ } @{ decode_json($t->read_file(
        "$FindBin::Bin/payloads/$file.json"))->{requests} })[0];
}


# ---- ids and times that are numbers

# 20 digits, as no double holds them
arrives('an id that is a number', '/own',
        '{"deviceid": 18446744073709551615, "received":"2020-02-03 04:05:06"}',
        undef, id => '18446744073709551615',
        time => '2020-02-03T04:05:06.000Z');
arrives('a time without a zone', '/own',
        '{"deviceid":1,"received":"2020-02-03T04:05:06.789012"}', undef,
        id => '1', time => '2020-02-03T04:05:06.789Z');
arrives('a time of 13 digits', '/own',
        '{"dev_eui":"AA","reported_at":1590000000123}', undef, id => 'AA',
        time => '2020-05-20T18:40:00.123Z');
arrives('a time of 14 digits is none', '/own',
        '{"dev_eui":"AA","reported_at":15900000001234}', undef, id => 'AA',
        time => undef);
arrives('numbers as texts', '/own',
        '{"dev_eui":"000000000F1D8693","received":"1590000000",'
        . '"LrrRSSI":"-60.000000"}', undef, id => '000000000F1D8693',
        time => '2020-05-20T18:40:00.000Z');
arrives('a name in an array', '/own', '{"device":7,"tags":["a","b"]}', undef,
        id => '7', event => 'a');
arrives('a name that is not there', '/own', '{"device":7}', undef,
        event => 'none');


# ---- a zone with a plus sign in the query, which there means a blank

my @ids;

for my $plus ('+', '%2B', '%20') {
    arrives("a zone with $plus", '/own?LrnDevEui=000000000F1D8693&'
            . "Time=2016-01-11T14:28:00.333${plus}02:00", '{"a":1}', undef,
            id => '000000000F1D8693', time => '2016-01-11T12:28:00.333Z');
    push @ids, ($hub->journal(op => 'send', accepted => 1))[0]{headers}
        {'iothub-messageid'};
}

arrives('the same again', '/own?LrnDevEui=000000000F1D8693&'
        . 'Time=2016-01-11T14:28:00.333+02:00', '{"a":1}', undef,
        message_id => $ids[0]);


# ---- what may not be in an id

refused('a slash', '/github',
        '{"repository":{"id":1,"full_name":"octocat/Hello-World"}}',
        422, 'rejected');
refused('an object', '/own', '{"deviceid":{"id":1}}', 422, 'rejected');
refused('a blank', '/own', '{"deviceid":"a b"}', 422, 'rejected');
refused('nothing', '/own', '{"deviceid":""}', 422, 'rejected');


# ---- the documented webhooks that no source is for

my $json = JSON::PP->new->canonical->utf8;
my $ping = payload('github', 'ping');

arrives('GitHub', '/github-id', $json->encode($ping->{body}),
        $ping->{headers}, event => 'ping',
        id => 'repository-' . $ping->{body}{repository}{id},
        message_id => $ping->{headers}{'X-GitHub-Delivery'});

refused('GitHub, the name of a repository', '/github',
        $json->encode($ping->{body}), 422, 'rejected');

my $stripe = payload('stripe', 'stripe-node');

arrives('Stripe, its test', '/stripe-test', $stripe->{body_raw},
        $stripe->{headers}, id => 'stripe', time => undef,
        message_id => 'evt_test_webhook');
arrives('Stripe', '/stripe',
        '{"id":"evt_1","type":"charge.succeeded","created":1492774577,'
        . '"data":{"object":{"metadata":{"device":"meter-1"}}}}', undef,
        id => 'meter-1', event => 'charge.succeeded',
        time => '2017-04-21T11:36:17.000Z');

my $standard = payload('standard-webhooks', 'spec example');

arrives('Standard Webhooks', '/standard', $standard->{body_raw},
        $standard->{headers}, id => '1f81eb52-5198-4599-803e-771906343485',
        event => 'contact.created', time => '2023-01-19T00:13:51.000Z',
        message_id => 'msg_2KWPBgLlAfxdpx2AI54pPJ85f4W');

my $svix = payload('standard-webhooks', 'svix vector');

arrives('svix', '/svix', $svix->{body_raw}, $svix->{headers}, id => 'svix',
        time => '2021-02-25T15:02:10.000Z',
        message_id => 'msg_p5jXN8AQM9LWM0D4loKWxJek');

my $sigfox = payload('sigfox', 'classic');
my %values = (device => '1A2B3C', time => 1533980400, seqNumber => 42,
              data => '0123', ack => 'false');
my $text = $sigfox->{template} =~ s/\{(\w+)\}/$values{$1} \/\/ '1.5'/ger;

arrives('Sigfox, the classic template', '/sigfox', $text,
        $sigfox->{headers}, id => '1A2B3C', time => '2018-08-11T09:40:00.000Z',
        message_id => '1A2B3C-1533980400-42');

# several lines of which none is JSON
my $lines = payload('sigfox', 'BATCH_URL')->{line_template}
    =~ s/\{(\w+)\}/$values{$1} \/\/ '1.5'/ger;

refused('Sigfox, BATCH_URL', '/sigfox', "$lines\n$lines\n", 415,
        'unsupported_media_type', 'Content-Type' => 'text/plain');

my $stream = payload('particle', 'event-stream')->{body};

$hub->forget;
is($t->post('/stream', $json->encode($stream))->{status}, 204,
   'Particle, as in its event stream');
is(($hub->messages)[0]{body}, '{"data":"25","device_id":"0123456789abcdef",'
   . '"event":"temp","published_at":"2014-05-28T19:20:51.638Z"}',
   'Particle, as in its event stream: the message');


# ---- JSON that is none

# a text with quotes that was put between quotes
refused('Particle, JSON in quotes', '/particle',
        '{"event":"e","coreid":"d","data":"{"t":1}"}', 400, 'malformed');

# as The Things Stack's documents print it: a comma is missing
refused('The Things Stack, as printed', '/tts',
        '{"end_device_ids":{"device_id":"dev1"'
        . '"application_ids":{"application_id":"app1"}}}', 400, 'malformed');

# and data that is JSON, without the quotes
$hub->forget;
is($t->post('/particle', '{"event":"e","coreid":"d","data":{"t": 0.10}}')
   ->{status}, 204, 'Particle, nested JSON');
is(($hub->messages)[0]{body}, '{"data":{"t": 0.10},"device_id":"d",'
   . '"event":"e","published_at":null}', 'Particle, nested JSON: as it is');


# ---- a sender that asks for a message to its device gets none

is($t->post('/sigfox', '{"device":"1A","data":"01","ack":true}')->{status},
   204, 'Sigfox: ack, and no downlink');


# ---- senders that give up soon get their answer before they do

# source, its sender's patience in seconds, the deadline, and a webhook

my @soon = (
    ['the-things-stack', 5, 4, '/tts', '{"end_device_ids":{"device_id":"slow",'
     . '"application_ids":{"application_id":"a"}},"received_at":"x",'
     . '"join_accept":{}}'],
    ['chirpstack', 5, 4, '/chirpstack?event=up',
     '{"deviceInfo":{"devEui":"slow"}}'],
    ['sigfox', 10, 8, '/sigfox', '{"device":"slow","data":"01"}'],
    ['notehub', undef, 8, '/notehub', '{"device":"slow","file":"f"}'],
);

$hub->add('slow', 'a.slow');
$hub->faults([{ op => 'send', hang => 1 }]);

my @answers = $t->parallel([map { [POST => $_->[3], body => $_->[4],
    headers => { 'Content-Type' => 'application/json' }] } @soon],
    scalar @soon);

$hub->faults([]);

for my $i (0 .. $#soon) {
    my ($source, $patience, $deadline) = @{ $soon[$i] };
    my $time = $answers[$i]{time};

    is($answers[$i]{status}, 504, "$source: 504");
    cmp_ok($deadline, '<', $patience, "$source: before it gives up")
        if $patience;
    cmp_ok($time, '>', $deadline - 0.5, "$source: not before the deadline");

    # a busy machine may take its time
    cmp_ok($time, '<', $deadline + 3.5, "$source: at the deadline, $time");
}


# ---- a format that is none of CloudEvents'

refused('CloudEvents in XML', '/cloudevents', '<a/>', 415,
        'unsupported_media_type',
        'Content-Type' => 'application/cloudevents+xml');


# ---- keys in a body are nobody's business

refused('a key in the body', '/own', '{"AppSKey":"D06B1C2E5A4F"', 400,
        'malformed');
refused('a key in a webhook without an id', '/own',
        '{"AppSKey":"D06B1C2E5A4F"}', 422, 'rejected');
unlike($t->error_log(no_debug => 1), qr/D06B1C2E5A4F/,
       'a key in the body: not in the log');

$t->done;
