#!/usr/bin/perl

# All of a webhook, or none of it: where a sender is told 2xx, each event has
# arrived as it was sent, whatever nginx or its configuration did before.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;
use IoTHubTest::HTTP qw(compose);

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);
my $json = 'application/json';
my $form = 'application/x-www-form-urlencoded';

$hub->add(map { "d$_" } 1 .. 9);
$t->nginx($hub->block('') . "\n"
          . $hub->block('zone 1m;') =~ s/contoso/other/r . <<'CONF');

    iothub_secret off;

    log_format told '$request_id|$iothub_hub|$iothub_result|$iothub_detail';
    log_format message escape=none '$iothub_message';
    access_log %%TESTDIR%%/access.log told;

    iothub_field $id json:/id;
    map $iothub_data $mapped { default $iothub_data; }

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location = /events {
            iothub_pass contoso;
            iothub_source cloudevents;
        }

        location = /grid {
            iothub_pass contoso;
            iothub_source eventgrid;
        }

        location @hub { iothub_pass contoso; }

        # what nginx has thrown away, and what it has sent elsewhere

        location = /large {
            client_max_body_size 30;
            error_page 413 = @hub;
            iothub_pass contoso;
        }

        location = /unbuffered {
            proxy_request_buffering off;
            proxy_pass http://127.0.0.1:%%PORT_9999%%;
            error_page 502 = @hub;
        }

        location = /buffered {
            proxy_pass http://127.0.0.1:%%PORT_9999%%;
            error_page 502 = @hub;
        }

        location = /mapped {
            iothub_pass contoso;
            iothub_filter $mapped;
            iothub_property trace $request_id;
            iothub_target @target;
        }

        location @target {
            proxy_set_header X-Data $mapped;
            proxy_set_header X-Trace $request_id;
            proxy_pass http://127.0.0.1:%%PORT_8081%%;
        }

        location = /each {
            iothub_pass contoso;
            iothub_source custom;
            iothub_each json:;
            iothub_device_id $id;
        }

        location = /hubs {
            iothub_pass $id;
            iothub_source custom;
            iothub_each json:;
            iothub_device_id d1;
        }

        location = /template {
            iothub_pass contoso;
            iothub_message '{"id":"$iothub_message_id"}';
        }

        location = /particle { iothub_pass contoso; }

        location = /logged {
            iothub_pass contoso;
            access_log %%TESTDIR%%/message.log message;
        }
    }

    server {
        listen 127.0.0.1:%%PORT_8081%%;
        location / { return 200 "[$http_x_data][$http_evil][$http_x_trace]"; }
    }

CONF


# sent(NAME, STATUS, URI, TYPE, BODY, HEADERS): the messages that arrived

sub sent {
    my ($name, $status, $uri, $type, $body, %headers) = @_;

    $hub->forget;

    my $answer = $t->post($uri, $body, %headers,
                          defined $type ? ('Content-Type' => $type) : ());

    is($answer->{status}, $status, "$name: $status");

    return ($hub->messages, { answer => $answer->{body} });
}


# ---- a CloudEvent in binary mode is one event, whatever its data is

my %event = ('ce-specversion' => '1.0', 'ce-id' => '7', 'ce-type' => 't',
             'ce-source' => '/devices/d1');

for ([$json, '[{"t":1},{"t":2}]'], [$json, '[]'], [$json, '{"t":1}'],
     [$json, '21.5'], [$json, '"a text"'], [$json, 'null'], [$json, ''],
     [$form, 'a=1&a=2'], ['text/plain', '{'])
{
    my ($type, $body) = @$_;
    my @messages = sent("binary mode, $type, $body", 204, '/events', $type,
                        $body, %event);

    is(scalar @messages - 1, 1, '... is one message');
    is($messages[0]{body}, $body, '... as it is');
    is($messages[0]{device}, 'd1', '... of its device');
}

sent('structured mode, a number', 400, '/events', $json, '21.5');
sent('binary mode, broken JSON', 400, '/events', $json, '{"a":', %event);


# ---- what confirms a subscription confirms it alone

my ($code, $other) = map {
    '{"id":"' . $_->[0] . '","subject":"d1","eventType":"' . $_->[1]
        . '","eventTime":"2026-01-01T00:00:00Z","data":{"validationCode":'
        . '"abc"}}'
} [1, 'Microsoft.EventGrid.SubscriptionValidationEvent'], [2, 'other'];

my @got = sent('validation', 200, '/grid', $json, "[$code]");

is(scalar @got, 1, 'validation: no message');
like($got[0]{answer}, qr/"validationResponse":"abc"/, 'validation: the code');

@got = sent('validation and an event', 204, '/grid', $json,
            "[$code,$other]");
cmp_ok(scalar @got, '>=', 2, 'validation and an event: it is delivered');


# ---- a body that is not there any more

@got = sent('thrown away by a 413', 503, '/large?coreid=d1&event=e', $form,
            'data=' . '0' x 100);
is(scalar @got, 1, 'thrown away by a 413: no message');
like($got[0]{answer}, qr/"code":"misconfigured".*taken or thrown away/,
     'thrown away by a 413: it is said');

@got = sent('read by a proxy that failed', 204, '/buffered', $form,
            'coreid=d1&event=e&data=whole');
is($got[0]{body} =~ /whole/ ? 1 : 0, 1, 'read by a proxy: all is there');

$hub->forget;

my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                   PeerPort => $t->port)
    or die "connect: $!";

$socket->print("POST /unbuffered HTTP/1.1\r\nHost: x\r\nConnection: close\r\n"
               . "Content-Type: $form\r\nContent-Length: 60\r\n\r\n"
               . 'coreid=d1&event=e&data=0123456');

my $answer = join '', <$socket>;

like($answer, qr{^HTTP/1\.1 503 }, 'half of it: 503');
is(scalar $hub->messages, 0, 'half of it: no message');
like($t->error_log, qr/step: webhook, result: misconfigured, (?x:
     ).*: the body of the webhook was taken or thrown away before (?x:
     )iothub_pass/, 'half of it: it is logged');


# ---- the target's headers

@got = sent('a map of a field', 200, '/mapped', $form,
            'coreid=d1&event=e&data=a%0D%0AEvil:%20yes');
like($got[1]{answer}, qr/^\[a\\r\\nEvil: yes\]\[\]/,
     'a map of a field: no header of its own');

my ($trace) = $got[1]{answer} =~ /\[(\w{32})\]$/;

is($got[0]{properties}{trace}, $trace,
   'a request has one $request_id: message and target');
ok($t->wait_for_log(qr/^\Q$trace\E\|/m, file => 'access.log'),
   'a request has one $request_id: the log');


# ---- many events that cannot be delivered

@got = sent('many events without a device', 422, '/each', $json,
            '[' . join(',', ('{}') x 500) . ']');

is(scalar $t->log_lines(qr/ event not delivered,.*no device id/), 10,
   'many events: ten lines');
like($t->error_log, qr/iothub events not delivered, hub: "contoso": 490 (?x:
     )more of the same webhook/, 'many events: one for the rest');


# ---- data that is not copied into the message

for my $data ('"' . join('', map { sprintf '%07d\\n', $_ } 1 .. 11_000) . '"',
              '[' . join(',', 1 .. 30_000) . ']', '"' . '.' x 4094 . '"',
              '"' . '.' x 4093 . '"')
{
    my $name = 'data of ' . length($data) . ' bytes';
    my $webhook = "{\"coreid\":\"d1\",\"event\":\"e\",\"data\":$data}";
    my $message = "{\"data\":$data,\"device_id\":\"d1\",\"event\":\"e\","
        . '"published_at":null}';

    $hub->faults([{ op => 'send', times => 1, status => 500 },
                  { op => 'send', times => 1, close => 'before' }]);
    @got = sent($name, 204, '/particle', $json, $webhook);
    is(scalar @got - 1, 1, "$name: one message");
    ok($got[0]{body} eq $message, "$name: byte for byte");
    is($hub->faults->[$_]{hits}, 1, "$name: after a fault") for 0, 1;
    $hub->faults([]);

    sent("$name, in the log", 204, '/logged', $json, $webhook);
    $t->wait_for_log(qr/"published_at":null\}$/m, file => 'message.log');
    ok($t->read_file('message.log') eq "$message\n", "$name: the log");
    unlink $t->dir . '/message.log';
    $t->signal('USR1');
    $t->_until(15, sub { -e $t->dir . '/message.log' });
}


# in pieces, as nginx reads them: each is a buffer, and the first may have come
# with the head

{
    my $data = join ',', map { "\"$_\"" } 1 .. 20_000;
    my $webhook = "{\"coreid\":\"d1\",\"event\":\"e\",\"data\":[$data]}";
    my $message = "{\"data\":[$data],\"device_id\":\"d1\",\"event\":\"e\","
        . '"published_at":null}';
    my $head = "POST /particle HTTP/1.1\r\nHost: localhost\r\n"
        . "Content-Type: $json\r\nConnection: close\r\n";
    my $length = 'Content-Length: ' . length($webhook) . "\r\n\r\n";
    my @pieces = map { substr $webhook, $_ * 30_000, 30_000 }
        0 .. length($webhook) / 30_000;
    my ($first, @rest) = @pieces;
    my @chunks = map { sprintf "%x\r\n%s\r\n", length, $_ } @pieces;

    for (['behind the head', $head . $length, @pieces],
         ['with the head', $head . $length . substr($first, 0, 100),
          substr($first, 100), @rest],
         ['with a byte of it', $head . $length . substr($first, 0, 1),
          substr($first, 1), @rest],
         ['all but a byte', $head . $length . substr($webhook, 0, -1),
          substr($webhook, -1)],
         ['chunks', $head . "Transfer-Encoding: chunked\r\n\r\n",
          @chunks, "0\r\n\r\n"])
    {
        my ($name, @parts) = @$_;

        $hub->forget;
        is($t->http(\@parts, pause => 0.02)->{status}, 204, "pieces: $name");

        my @messages = $hub->messages;

        is(scalar @messages, 1, "pieces: $name: one message");
        ok($messages[0]{body} eq $message, "pieces: $name: byte for byte");
    }
}


# ---- smaller things

@got = sent('null in JSON', 204, '/particle?coreid=d1', $json,
            '{"coreid":null,"event":"e","data":1}');
is($got[0]{device}, 'd1', 'null in JSON: as good as absent');

@got = sent('an id that the gateway makes', 204, '/template', $form,
            'coreid=d1&event=e&data=1');
is(decode_json($got[0]{body})->{id}, $got[0]{system}{messageid},
   'an id that the gateway makes: in the message, too');

@got = sent('several hubs', 503, '/hubs', $json,
            '[{"id":"nowhere"},{"id":"other"}]');
ok($t->wait_for_log(qr/^\w+\|\w*\|misconfigured\|1 of 2 events/m,
                    file => 'access.log'), 'several hubs: the log');

$t->done;
