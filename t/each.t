#!/usr/bin/perl

# Webhooks that hold several events: each is a message of its own device with
# its own properties, events of one device go together, and the sender is told
# of all of them at once.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use Test::More;
use Time::HiRes qw(time);
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

(my $second = $hub->block('zone 1m;')) =~ s/contoso/second/;
(my $closing = $hub->block('zone 1m;')) =~ s/contoso/closing/;

$t->nginx("$second\n$closing\n" . <<'CONF');

    %%IOTHUB%%

    iothub_secret off;
    client_max_body_size 2m;
    client_body_buffer_size 2m;

    iothub_field $id     json:/id;
    iothub_field $kind   json:/kind default=none;
    iothub_field $value  json:/value;
    iothub_field $sent   json:/sent;
    iothub_field $batch  query:batch;
    iothub_field $key    json:/key;

    map $kind $upper {
        default  other;
        temp     TEMP;
        ~^hum    HUM;
    }

    map $kind $wanted {
        default  1;
        noise    0;
    }

    map $kind $hub {
        default  contoso;
        second   second;
        nowhere  "";
    }

    log_format outcome '$iothub_device_id|$iothub_result|$iothub_tries|'
                       '$iothub_hub_status';
    log_format trace '$request_id';
    access_log %%TESTDIR%%/access.log outcome;
    access_log %%TESTDIR%%/trace.log trace;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        iothub_source custom;
        iothub_device_id $id;
        iothub_published_at $sent;
        iothub_message_id $key;
        iothub_property kind $upper;
        iothub_property batch $batch;
        iothub_property trace $request_id;
        iothub_filter $wanted;

        location = /each {
            iothub_each json:/events;
            iothub_pass $hub;
        }

        location = /closing {
            iothub_each json:/events;
            iothub_deadline 700ms;
            iothub_pass closing;
        }

        location = /root {
            iothub_each json:;
            iothub_message escape=json '{"v":$value,"k":"$kind"}';
            iothub_pass $hub;
        }

        location = /eventgrid {
            iothub_source eventgrid;
            iothub_device_id $iothub_device_id;
            iothub_published_at $iothub_published_at;
            iothub_message_id $iothub_message_id;
            iothub_property event $iothub_event;
            iothub_pass contoso;
        }

        location = /cloudevents {
            iothub_source cloudevents;
            iothub_device_id $iothub_device_id;
            iothub_published_at $iothub_published_at;
            iothub_message_id $iothub_message_id;
            iothub_pass contoso;
        }
    }

CONF


sub webhook {
    my ($uri, $body, %headers) = @_;

    $hub->forget;

    return $t->request(POST => $uri,
        body => ref $body ? JSON::PP->new->canonical->encode($body) : $body,
        headers => { 'Content-Type' => 'application/json', %headers });
}


sub problem { return eval { decode_json($_[0]{body}) } // {} }


# what the hub has: "device body kind" of each message, in order

sub messages {
    return map {
        "$_->{device} $_->{body} " . ($_->{properties}{kind} // '-')
    } $hub->messages;
}


sub calls {
    return join ', ', map { "$_->{op} $_->{device} $_->{status}" }
        $hub->journal;
}

$hub->add(map { "d$_" } 1 .. 9);


# ---- each element is an event

my $answer = webhook('/each?batch=b1', '{"id":"whole","events":['
    . '{"id":"d1","kind":"temp","value":0.10}, {"id":"d2","kind":"humidity"},'
    . '{"id":"d1","value":18446744073709551616},{"id":"d1","kind":"noise"}]}');

is($answer->{status}, 204, 'delivered');
is_deeply([sort(messages())],
          ['d1 {"id":"d1","kind":"temp","value":0.10} TEMP',
           'd1 {"id":"d1","value":18446744073709551616} other',
           'd2 {"id":"d2","kind":"humidity"} HUM'],
          'each with its own values, as they were written');
like(calls(), qr/^(?=.*batch d1 204)(?=.*send d2 204)(?!.*,.*,)/,
     'those of one device together');

my ($batch) = $hub->journal(op => 'batch');

is($batch->{headers}{'content-type'}, 'application/vnd.microsoft.iothub.json',
   'the type of a batch');

my $sent = decode_json($batch->{body});

is(scalar @$sent, 2, 'two in the batch');
is($sent->[0]{base64Encoded}, JSON::PP::true, 'in base64');
is($sent->[0]{properties}{'iothub-app-kind'}, 'TEMP', 'its property');
is($sent->[0]{properties}{'iothub-app-batch'}, 'b1', 'and that of all');
is($sent->[0]{properties}{'iothub-contenttype'}, 'application/json',
   'its content type');
isnt($sent->[0]{properties}{'iothub-messageid'},
     $sent->[1]{properties}{'iothub-messageid'}, 'ids of their own');

ok($t->wait_for_log(qr/^d1\|delivered\|2\|204, 204$/, file => 'access.log'),
   'one line in the access log');

my %trace = map { $_->{properties}{trace} => 1 } $hub->messages;

is(scalar(my ($trace) = keys %trace), 1,
   'a request has one $request_id: in all its events');
ok($t->wait_for_log(qr/^\Q$trace\E$/, file => 'trace.log'),
   'a request has one $request_id: in the log');


# ---- times and ids

$answer = webhook('/each', { events => [
    map { { id => 'd3', sent => "2026-11-23T10:00:0$_.5+01:00",
            $_ == 1 ? (key => 'own-id') : () } } 1 .. 3
] });

is($answer->{status}, 204, 'times: delivered');
$sent = decode_json(($hub->journal(op => 'batch'))[0]{body});
is_deeply([map { $_->{properties}{'iothub-app-iothub-creation-time-utc'} }
           @$sent],
          [map { "2026-11-23T09:00:0$_.500Z" } 1 .. 3], 'times: normalised');
is($sent->[0]{properties}{'iothub-messageid'}, 'own-id', 'ids: the own one');

my @ids = map { $_->{properties}{'iothub-messageid'} } @$sent;

webhook('/each', { events => [
    map { { id => 'd3', sent => "2026-11-23T10:00:0$_.5+01:00",
            $_ == 1 ? (key => 'own-id') : () } } 1 .. 3
] });
$sent = decode_json(($hub->journal(op => 'batch'))[0]{body});
is_deeply([map { $_->{properties}{'iothub-messageid'} } @$sent], \@ids,
          'ids: the same when it is repeated');


# ---- an array as the body, a template, another hub, new devices

$answer = webhook('/root', '[{"id":"n1","kind":"second","value":[1, 2]},'
                           . '{"id":"n2","value":"a\"b"},{"id":"n 3"}]');

is($answer->{status}, 422, 'one of them has no legal id');
is(problem($answer)->{code}, 'rejected', 'rejected');
like(problem($answer)->{detail}, qr/^2 of 3 events were delivered, 0 were (?x:
                                   )filtered: the device id has a character/,
     'the sender is told how many, and why');
is(scalar(my @puts = $hub->journal(op => 'create')), 2,
   'new devices are created');

$answer = webhook('/root', '[{"id":"n1","kind":"second","value":[1, 2]},'
                           . '{"id":"n2","value":5}]');
is($answer->{status}, 204, 'templates: delivered');
is_deeply([sort(messages())],
          ['n1 {"v":[1, 2],"k":"second"} other',
           'n2 {"v":5,"k":"none"} other'], 'templates: of each element');

is(webhook('/root', '[]')->{status}, 204, 'no events: nothing to do');
is(calls(), '', 'no events: no calls');
is(webhook('/each', '{"events":{}}')->{status}, 422, 'no array: rejected');
is(webhook('/each', '{"events":[{"id":"d1","kind":"noise"}]}')->{status}, 204,
   'all filtered');
is(calls(), '', 'all filtered: no calls');


# ---- the worst that can be repeated comes first

$hub->add('gone');
$hub->disable('gone');
$hub->faults([{ op => 'send|batch', device => 'd5', status => 500 }]);

for my $case (
    [[qw(d4 gone)], 422, 'blocked', '1 of 2'],
    [[qw(d4 d5)], 503, 'unavailable', '1 of 2'],
    [[qw(gone d5 d5 d4 d4), 'bad id'], 503, 'unavailable', '2 of 6'],
    [['bad id', 'd4'], 422, 'rejected', '1 of 2'],
) {
    my ($ids, $status, $word, $count) = @$case;

    $answer = webhook('/closing', { events => [map { { id => $_ } } @$ids] });

    is($answer->{status}, $status, "@$ids: $status");
    is(problem($answer)->{code}, $word, "@$ids: $word");
    like(problem($answer)->{detail} // '', qr/^$count events were delivered/,
         "@$ids: $count");
}

$hub->faults([]);


# ---- one that the hub refuses does not hold back the others

$hub->faults([{ op => 'batch', device => 'd6', status => 400, times => 1 }]);
$answer = webhook('/each', { events => [map { { id => 'd6', value => $_ } }
                                        1 .. 3] });

is($answer->{status}, 204, 'a refused batch: delivered');
is(calls(), 'batch d6 400, send d6 204, send d6 204, send d6 204',
   'a refused batch: one by one');
$hub->faults([]);


# ---- size

my @events = map { { id => 'd7', value => "$_" . 'x' x 20_000 } } 1 .. 40;

$answer = webhook('/each', { events => \@events });
is($answer->{status}, 204, '800 KB of one device: delivered');

my @batches = $hub->journal(op => 'batch');

cmp_ok(scalar @batches, '>=', 4, 'in several batches');
cmp_ok(length $_->{body}, '<=', 255 * 1024, 'none of them too large')
    for @batches;
is(join(',', map { /"value":"(\d+)x/ ? $1 : '?' } map { $_->{body} }
        $hub->messages), join(',', 1 .. 40), 'in their order');

$answer = webhook('/each', { events => [
    { id => 'd7', value => 'x' x 200_000 }, { id => 'd7', value => 'y' },
    { id => 'd7', value => 'z' x 300_000 },
] });
is($answer->{status}, 413, 'one is too large');
like(problem($answer)->{detail}, qr/^2 of 3 events/, 'the others are there');

$answer = webhook('/root', [map { { id => "many$_", value => $_ } } 1 .. 1001]);
is($answer->{status}, 413, 'too many events');
is(calls(), '', 'none of them was sent');


# ---- many devices side by side

$hub->add(map { "side$_" } 1 .. 100);
$hub->faults([{ op => 'send|batch', device_re => '^side', delay => 100 }]);

my $start = time;

$answer = webhook('/each', { events => [map { { id => "side$_" } } 1 .. 100] });
is($answer->{status}, 204, '100 devices: delivered');
cmp_ok(time - $start, '<', 5, 'side by side');
is(scalar $hub->messages, 100, '100 messages');
$hub->faults([]);

# the deadline is that of all of them

$hub->faults([{ op => 'send|batch', device => 'd8', hang => 1 }]);
$start = time;
$answer = webhook('/closing', { events => [map { { id => $_ } }
                                          qw(d8 d9 d8 d9)] });
is($answer->{status}, 504, 'one hangs: 504');
like(problem($answer)->{detail}, qr/^2 of 4 events were delivered/,
     'one hangs: the others are there');
cmp_ok(time - $start, '<', 3, 'one hangs: at the deadline');

# so many at once that the last ones have no turn: of these it is known

$hub->faults([{ op => 'send|batch', device_re => '^side', hang => 1 }]);
$answer = webhook('/closing', { events => [map { { id => "side$_" } }
                                          1 .. 18] });
is($answer->{status}, 504, 'all hang: 504');
like(problem($answer)->{detail}, qr/^0 of 18 .* the hub did not answer/,
     'all hang: what nobody knows comes first');
is(scalar $t->log_lines(qr/device: "side.*result: timeout,/), 16,
   'all hang: 16 at once');
is(scalar $t->log_lines(qr/device: "side.*result: unavailable, .*tries: 0: (?x:
    )the deadline passed before the message could be sent/), 2,
   'all hang: the others were not sent');
$hub->faults([]);


# ---- senders that send arrays

sub payload {
    my ($file, $name) = @_;

    return (grep { $_->{name} =~ /^\Q$name\E/ } @{ decode_json($t->read_file(
        "$FindBin::Bin/payloads/$file.json"))->{requests} })[0];
}

my $payload = payload('azure-eventgrid', 'SubscriptionValidation');

$answer = webhook('/eventgrid', $payload->{body}, %{ $payload->{headers} });
is($answer->{status}, 200, 'Event Grid: the subscription is confirmed');
is_deeply(decode_json($answer->{body}), $payload->{expect_response}{body},
          'Event Grid: by its code');
is($answer->{headers}{'content-type'}, 'application/json',
   'Event Grid: in JSON');
is(calls(), '', 'Event Grid: nothing is sent for that');

$payload = payload('azure-eventgrid', 'DeviceTelemetry');
$hub->add('LogicAppTestDevice');
$answer = webhook('/eventgrid', $payload->{body}, %{ $payload->{headers} });
is($answer->{status}, 204, 'Event Grid: an event');
is(calls(), 'send LogicAppTestDevice 204', 'Event Grid: of its device');

my ($message) = $hub->journal(op => 'send');

is($message->{headers}{'iothub-messageid'}, $payload->{body}[0]{id},
   'Event Grid: its id');
is($message->{headers}{'iothub-creationtimeutc'}, '2019-01-07T20:58:30.480Z',
   'Event Grid: its time');
is_deeply(decode_json($message->{body}), $payload->{body}[0],
          'Event Grid: its body');

$answer = webhook('/eventgrid', [{ subject => 'devices/not legal' }]);
is($answer->{status}, 400, 'Event Grid: rejected is 400');

is(webhook('/eventgrid', '{"subject":"devices/d1","id":"x"}')->{status}, 204,
   'Event Grid: without an array');
is($t->request(OPTIONS => '/eventgrid',
               headers => { 'WebHook-Request-Origin' => 'eventgrid.azure.net' })
   ->{headers}{'webhook-allowed-origin'}, 'eventgrid.azure.net',
   'Event Grid: the handshake of CloudEvents');

$payload = payload('cloudevents', 'batch');
$answer = webhook('/cloudevents', $payload->{body}, %{ $payload->{headers} });
is($answer->{status}, 204, 'CloudEvents: a batch');
is_deeply([sort map { "$_->{device} $_->{status}" }
           $hub->journal(op => 'send', accepted => 1)], ['1 204', '2 204'],
          'CloudEvents: each to its device');


# ---- wrong configurations

for my $case (
    ['iothub_each form:a;', qr/invalid locator "form:a": an array is in JSON/],
    ['iothub_each json:a;', qr/invalid locator "json:a": a pointer has to/],
    ['iothub_each json:/a; iothub_each json:/b;',
     qr/"iothub_each" directive is duplicate/],
) {
    my ($text, $expected) = @$case;
    my ($exit, $output) = $t->nginx_t("%%IOTHUB%%\n$text\n");

    isnt($exit, 0, "$text: refused");
    like($output, $expected, "$text: said why");
}

$t->done;
