#!/usr/bin/perl

# The presets for senders, by their documented webhooks: which device, event,
# time and message id is found, and that the sender's body is the message.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP;
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

my @sources = qw(the-things-stack chirpstack sigfox notehub cloudevents
                 device-bridge custom);

$t->write_file('secret', "word\n");

$t->nginx(<<'CONF' . join('', map { <<"CONF" } @sources) . "}\n");

    %%IOTHUB%%

    iothub_secret off;

    log_format fields '$uri|$iothub_device_id|$iothub_event|'
                      '$iothub_published_at|$iothub_result|$iothub_detail';
    access_log %%TESTDIR%%/access.log fields;

    iothub_field $bridge_data json:/data;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location ~ ^/devices/(?<bridge_id>[^/]+)/messages/events$ {
            iothub_source custom;
            iothub_device_id $bridge_id;
            iothub_message $bridge_data;
            iothub_pass contoso;
        }

        location = /own {
            iothub_source custom;
            iothub_device_id $http_x_device;
            iothub_event $arg_event;
            iothub_pass contoso;
        }

        location = /query {
            iothub_source custom;
            iothub_device_id $arg_id;
            iothub_data $arg_data;
            iothub_pass contoso;
        }

        location = /secret {
            iothub_source cloudevents;
            iothub_secret header=X-Secret file=%%TESTDIR%%/secret;
            iothub_pass contoso;
        }

        location = /template {
            iothub_source the-things-stack;
            iothub_message escape=json '{"e":"$iothub_event","d":$iothub_data}';
            iothub_pass contoso;
        }
CONF
        location = /$_ {
            iothub_source $_;
            iothub_property event \$iothub_event;
            iothub_pass contoso;
        }
CONF


sub payloads {
    my ($file) = @_;

    return @{ decode_json($t->read_file("$FindBin::Bin/payloads/$file.json"))
              ->{requests} };
}


sub payload {
    my ($file, $name) = @_;

    return (grep { $_->{name} =~ /^\Q$name\E/ } payloads($file))[0];
}

my $json = JSON::PP->new->canonical->utf8;
my $n = 0;


# arrives(NAME, [METHOD, URI, BODY, HEADERS], what is expected of the message)

sub arrives {
    my ($name, $webhook, %want) = @_;
    my ($method, $uri, $body, %headers) = @$webhook;

    $hub->forget;

    my $answer = $t->request($method, $uri, defined $body
        ? (body => $body, headers => { 'Content-Type' => 'application/json',
                                       %headers })
        : (headers => \%headers));

    is($answer->{status}, 204, "$name: delivered");

    my ($message) = $hub->journal(op => 'send', accepted => 1);

    return fail("$name: no message") unless $message;

    my $h = $message->{headers};

    is($message->{device}, $want{id}, "$name: the device");
    is($h->{'iothub-app-event'}, $want{event}, "$name: the event");
    is($h->{'iothub-creationtimeutc'}, $want{time}, "$name: the time");
    is($h->{'iothub-messageid'}, $want{message_id}, "$name: the message id")
        if exists $want{message_id};
    is($message->{body}, $want{body} // $body, "$name: the body");
    is($h->{'iothub-contenttype'}, $want{type} // 'application/json',
       "$name: the content type")
        unless exists $want{type} && !defined $want{type};

    return $message;
}


sub refused {
    my ($name, $webhook, $status, $word) = @_;
    my ($method, $uri, $body, %headers) = @$webhook;

    my $answer = $t->request($method, $uri, body => $body,
        headers => { 'Content-Type' => 'application/json', %headers });

    is($answer->{status}, $status, "$name: $status");
    is(eval { decode_json($answer->{body})->{code} }, $word, "$name: $word");
}


# ---- The Things Stack

for my $event (qw(uplink_message join_accept)) {
    my $body = $json->encode(payload('the-things-stack-v3', $event)->{body});
    my ($as) = $body =~ /"(as:[^"]+)"/;
    my ($time) = map { s/(\.\d{3})\d*Z/$1Z/r }
        decode_json($body)->{received_at};

    arrives("the-things-stack, $event", [POST => '/the-things-stack', $body],
            id => 'app1.dev1', event => $event, time => $time,
            message_id => $as);
}

arrives('the-things-stack, in a template',
        [POST => '/template', '{"end_device_ids":{"device_id":"dev2",'
         . '"application_ids":{"application_id":"app"}},"received_at":"x",'
         . '"downlink_ack":{"f_cnt": 0.10}}'],
        id => 'app.dev2', event => undef, time => undef,
        body => '{"e":"downlink_ack","d":{"f_cnt": 0.10}}');

refused('the-things-stack, no application',
        [POST => '/the-things-stack', '{"end_device_ids":{"device_id":"d"}}'],
        422, 'rejected');
refused('the-things-stack, by PUT', [PUT => '/the-things-stack', '{}'],
        405, 'method_not_allowed');


# ---- ChirpStack

for my $request (payloads('chirpstack-v4')) {
    my $body = $request->{body} or next;
    my $event = $request->{name};
    my $time = $body->{time} =~ s/(\.\d{3})\d*\+00:00$/$1Z/r;

    arrives("chirpstack, $event",
            [POST => "/chirpstack?event=$event", $json->encode($body)],
            id => '0101010101010101', event => $event, time => $time,
            message_id => "$body->{deduplicationId}-$event");
}

# those events have no deduplication id

my $body = '{"time":"2022-07-18T09:34:15+02:00","deviceInfo":'
    . '{"devEui":"0202020202020202"},"level":"INFO"}';

my $first = arrives('chirpstack, log', [POST => '/chirpstack?event=log', $body],
                    id => '0202020202020202', event => 'log',
                    time => '2022-07-18T07:34:15.000Z');
my $second = arrives('chirpstack, log again',
                     [POST => '/chirpstack?event=log', $body],
                     id => '0202020202020202', event => 'log',
                     time => '2022-07-18T07:34:15.000Z');

isnt($first->{headers}{'iothub-messageid'},
     $second->{headers}{'iothub-messageid'}, 'chirpstack, log: random ids');

refused('chirpstack, protobuf', [POST => '/chirpstack?event=up', "\x0a\x03abc",
         'Content-Type' => 'application/octet-stream'], 415,
        'unsupported_media_type');


# ---- Sigfox: time in seconds, and values that are all strings

my $sigfox = payload('sigfox', 'UnaConnect')->{body};

arrives('sigfox', [POST => '/sigfox', $json->encode($sigfox)],
        id => '1A2B3C', event => 'data', time => '2018-08-11T09:40:00.000Z',
        message_id => '1A2B3C-1533980400-42');
arrives('sigfox, form', [POST => '/sigfox', 'device=1A2B3D&data=01&time='
                         . '1533980400&seqNumber=7&event=geo',
                         'Content-Type' =>
                         'application/x-www-form-urlencoded'],
        id => '1A2B3D', event => 'geo', time => '2018-08-11T09:40:00.000Z',
        message_id => '1A2B3D-1533980400-7',
        type => 'application/x-www-form-urlencoded');
arrives('sigfox, GET', [GET => '/sigfox?device=1A2B3E&data=0102'],
        id => '1A2B3E', event => 'data', time => undef,
        body => '{"data":"0102","device_id":"1A2B3E","event":"data",'
              . '"published_at":null}');


# ---- Notehub: ids with a colon

for my $request (payloads('blues-notehub')) {
    my $b = $request->{body};

    my $message = arrives("notehub, $request->{name}",
        [POST => '/notehub', $json->encode($b)],
        id => 'dev:864475040523995', event => $b->{file},
        time => { 1669667695 => '2022-11-28T20:34:55.000Z',
                  1669667707 => '2022-11-28T20:35:07.000Z' }->{$b->{when}},
        message_id => $b->{event});

    like($message->{uri}, qr{^/devices/dev%3A864475040523995/},
         'notehub: the colon is escaped');
}


# ---- CloudEvents

my $structured = payload('cloudevents', 'structured');

arrives('cloudevents, structured',
        [POST => '/cloudevents', $json->encode($structured->{body}),
         'Content-Type' => 'application/cloudevents+json; charset=utf-8'],
        id => 'LogicAppTestDevice', event => 'Microsoft.Devices.DeviceTelemetry',
        time => '2019-01-07T20:58:30.480Z');

my $binary = payload('cloudevents', 'binary');

my $message = arrives('cloudevents, binary',
    [POST => '/cloudevents', '{"type":"not this"}', %{ $binary->{headers} }],
    id => 'subcontext', event => 'com.example.someevent',
    time => '2018-04-05T03:56:24.000Z');

like($message->{headers}{'iothub-messageid'}, qr/^[0-9a-f]{64}$/,
     'cloudevents: id and source make the message id');

arrives('cloudevents, binary, any type',
    [POST => '/cloudevents', "\x00\xff", %{ $binary->{headers} },
     'ce-source' => '/a/dev%3A1', 'ce-type' => 'a%20b',
     'Content-Type' => 'application/octet-stream'],
    id => 'dev:1', event => 'a b', time => '2018-04-05T03:56:24.000Z',
    type => 'application/octet-stream');

refused('cloudevents, controls in a header',
        [POST => '/cloudevents', '{}', %{ $binary->{headers} },
         'ce-type' => 'a%0D%0Ab'], 422, 'rejected');

my $handshake = payload('cloudevents', 'validation handshake');
my $answer = $t->request(OPTIONS => '/cloudevents',
                         headers => $handshake->{headers});

is($answer->{status}, 200, 'handshake: 200');
is($answer->{headers}{'webhook-allowed-origin'}, 'eventemitter.example.com',
   'handshake: the origin');
is($answer->{headers}{'webhook-allowed-rate'}, '*', 'handshake: the rate');
is($answer->{headers}{allow}, 'POST', 'handshake: Allow');

$answer = $t->request(OPTIONS => '/cloudevents');
is($answer->{status}, 200, 'OPTIONS of somebody else: 200');
ok(!exists $answer->{headers}{'webhook-allowed-origin'},
   'OPTIONS of somebody else: nothing is allowed');

is($t->request(OPTIONS => '/secret')->{status}, 401,
   'handshake: after the secret');
is($t->request(OPTIONS => '/chirpstack')->{status}, 405,
   'OPTIONS of another source: 405');
is($t->request(OPTIONS => '/own')->{headers}{allow}, 'POST, PUT',
   'which says what it takes');


# ---- device bridge

my $bridge = payload('iotc-device-bridge', 'bridge format')->{body};

arrives('device-bridge', [POST => '/device-bridge', $json->encode($bridge)],
        id => 'my-cloud-device', event => undef, time => undef);
arrives('device-bridge, with a time',
        [POST => '/device-bridge', $json->encode({ %$bridge,
         timestamp => '2026-11-23T10:00:00.5+01:00' })],
        id => 'my-cloud-device', event => undef,
        time => '2026-11-23T09:00:00.500Z');

my $both = payload('iotc-device-bridge', 'bidirectional')->{body};

arrives('bidirectional bridge', [POST => '/devices/dev-9/messages/events',
                                 $json->encode($both)],
        id => 'dev-9', event => undef, time => undef,
        body => $json->encode($both->{data}));


# ---- anything else

for my $case (['{"a": 0.10 }', 'application/json'],
              ['[1,2]', 'application/vnd.own+json', 'application/json'],
              ['21.50', 'application/json'],
              [' "a \\u00e4" ', 'application/json; charset=utf-8',
               'application/json'],
              ['null', 'text/json', 'application/json'],
              ["text \xe9", 'text/plain; charset=iso-8859-1'],
              ['a=1&b=%zz', 'application/octet-stream'],
              ["\x00\x01\x02", 'application/octet-stream'])
{
    my ($text, $type, $expected) = @$case;

    my $message = arrives("custom, $type, $text",
            [PUT => '/own?event=e', $text, 'X-Device' => 'c1',
             'Content-Type' => $type],
            id => 'c1', event => undef, time => undef,
            type => $expected // $type);

    is($message->{headers}{'iothub-contentencoding'},
       $type =~ /json/ ? 'utf-8' : undef, "custom, $type: the encoding");
}

my $empty = arrives('custom, without a body',
                    [PUT => '/own?event=e', undef, 'X-Device' => 'c1'],
                    id => 'c1', event => undef, time => undef, body => '',
                    type => undef);

is($empty->{headers}{'iothub-contenttype'}, undef,
   'custom, without a body: of no type');

arrives('custom, with data of the query', [PUT => '/query?id=c1&data=21'],
        id => 'c1', event => undef, time => undef,
        body => '{"data":"21","device_id":"c1","event":null,'
                . '"published_at":null}');

refused('custom, without an id', [POST => '/custom', '{}'], 422, 'rejected');
refused('custom, JSON that is none',
        [POST => '/own', $_, 'X-Device' => 'c1'], 400, 'malformed')
    for '{', '21.', '"a', '1 2', '1e400';

my ($exit, $output) = $t->nginx_t('iothub_source ttn;');

isnt($exit, 0, 'an unknown source');
like($output, qr/unknown source "ttn", write "particle", "the-things-stack",/,
     'is told the names');

$t->done;
