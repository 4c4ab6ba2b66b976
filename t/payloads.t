#!/usr/bin/perl

# Every webhook that t/payloads holds, as its sender documents it, byte for
# byte where a body is printed: the message that arrives, its properties, id
# and time, each with a configuration of at most a dozen lines beside the
# hub's block and the server.  A webhook without an expectation here is a
# failure.

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_base64 hmac_sha256_hex);
use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP;
use MIME::Base64 qw(decode_base64);
use Test::More;
use IoTHubTest;

my $MOST_LINES = 12;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);
my $json = JSON::PP->new->canonical->utf8->allow_nonref;

my (%text, %file);

for my $path (glob "$FindBin::Bin/payloads/*.json") {
    my ($name) = $path =~ m{([^/]+)\.json$};

    $text{$name} = $t->read_file($path);
    $file{$name} = $json->decode($text{$name});
}

my $github_key = $file{github}{auth}{test_vector}{secret};
my $whsec = $file{'standard-webhooks'}{auth}{secret_for_svix_vector};

$t->write_file('secret', "word\n");
$t->write_file('bearer', "Bearer TOKEN\n");
$t->write_file('github', $github_key);
$t->write_file('stripe', $file{stripe}{auth}{secret});
$t->write_file('whsec', $whsec);

my %secret = ('X-Secret' => 'word');


# ---- the configurations: of each file, or of one webhook of it

my %conf = (particle => <<'CONF', 'particle/event-stream' => <<'CONF',
location /particle {
    iothub_pass      contoso;
    iothub_secret    header=X-Secret file=secret;
    iothub_property  event $iothub_event;
}
CONF
iothub_field $particle_name json:/name;
location /particle/event-stream {
    iothub_pass      contoso;
    iothub_secret    header=X-Secret file=secret;
    iothub_event     $particle_name;
    iothub_property  event $iothub_event;
}
CONF
    'iotc-device-bridge' => <<'CONF',
location /iotc-device-bridge {
    iothub_pass    contoso;
    iothub_source  device-bridge;
    iothub_secret  header=X-Functions-Key file=secret;
}
CONF
    'iotc-device-bridge/bidirectional' => <<'CONF',
iothub_field $bridge_data  json:/data raw;
iothub_field $bridge_prop1 json:/properties/prop1;
location ~ ^/devices/(?<bridge_id>[^/]+)/messages/events$ {
    iothub_pass       contoso;
    iothub_source     custom;
    iothub_secret     header=X-API-Key file=secret;
    iothub_device_id  $bridge_id;
    iothub_message    $bridge_data;
    iothub_property   prop1 $bridge_prop1;
}
CONF
    'the-things-stack-v3' => <<'CONF', 'chirpstack-v4' => <<'CONF',
location /the-things-stack-v3 {
    iothub_pass      contoso;
    iothub_source    the-things-stack;
    iothub_secret    header=X-Secret file=secret;
    iothub_property  event $iothub_event;
}
CONF
location /chirpstack-v4 {
    iothub_pass      contoso;
    iothub_source    chirpstack;
    iothub_secret    header=X-Secret file=secret;
    iothub_property  event $iothub_event;
}
CONF
    sigfox => <<'CONF', 'sigfox/BATCH_URL' => <<'CONF',
location /sigfox {
    iothub_pass      contoso;
    iothub_source    sigfox;
    iothub_secret    header=Authorization file=bearer;
    iothub_property  event $iothub_event;
}
CONF
iothub_field $lines body;
map $lines $lines_id { "~^(?<first_id>[^;]+);" $first_id; }
location /sigfox/batch {
    iothub_pass       contoso;
    iothub_source     custom;
    iothub_secret     header=Authorization file=bearer;
    iothub_device_id  $lines_id;
}
CONF
    'blues-notehub' => <<'CONF', cloudevents => <<'CONF',
location /blues-notehub {
    iothub_pass      contoso;
    iothub_source    notehub;
    iothub_secret    header=X-Secret file=secret;
    iothub_property  event $iothub_event;
}
CONF
location /cloudevents {
    iothub_pass      contoso;
    iothub_source    cloudevents;
    iothub_secret    header=X-Secret file=secret;
    iothub_property  event $iothub_event;
}
CONF
    'azure-eventgrid' => <<'CONF', github => <<'CONF',
location /azure-eventgrid {
    iothub_pass      contoso;
    iothub_source    eventgrid;
    iothub_secret    header=X-Secret file=secret;
    iothub_property  event $iothub_event;
}
CONF
iothub_field $repository json:/repository/id;
location /github {
    iothub_pass        contoso;
    iothub_source      custom;
    iothub_signature   github file=github;
    iothub_device_id   repository-$repository;
    iothub_event       $http_x_github_event;
    iothub_message_id  $http_x_github_delivery;
    iothub_property    event $iothub_event;
}
CONF
    stripe => <<'CONF', 'standard-webhooks' => <<'CONF',
iothub_field $stripe_id      json:/id;
iothub_field $stripe_account json:/account default=own-account;
iothub_field $stripe_created json:/created;
location /stripe {
    iothub_pass          contoso;
    iothub_source        custom;
    iothub_signature     stripe file=stripe tolerance=60y;
    iothub_device_id     $stripe_account;
    iothub_message_id    $stripe_id;
    iothub_published_at  $stripe_created;
}
CONF
iothub_field $contact      json:/data/id;
iothub_field $contact_type json:/type;
location /standard-webhooks {
    iothub_pass          contoso;
    iothub_source        custom;
    iothub_signature     standard-webhooks file=whsec tolerance=60y;
    iothub_device_id     $contact;
    iothub_event         $contact_type;
    iothub_message_id    $http_webhook_id;
    iothub_published_at  $http_webhook_timestamp;
    iothub_property      event $iothub_event;
}
CONF
    'standard-webhooks/svix' => <<'CONF');
location /standard-webhooks/svix {
    iothub_pass          contoso;
    iothub_source        custom;
    iothub_signature     standard-webhooks file=whsec header=Svix-Signature
                         tolerance=60y;
    iothub_device_id     svix;
    iothub_message_id    $http_svix_id;
    iothub_published_at  $http_svix_timestamp;
}
CONF

for my $name (sort keys %conf) {
    cmp_ok(scalar split(/\n/, $conf{$name}), '<=', $MOST_LINES,
           "$name: at most $MOST_LINES lines");
}

my ($fields, $locations) = ('', '');

for my $name (sort keys %conf) {
    my ($before, $location) = $conf{$name} =~ /^(.*?)(^location .*)\z/ms;

    $fields .= $before;
    $locations .= $location;
}

$t->nginx(<<"CONF");

%%IOTHUB%%

$fields

server {
    listen 127.0.0.1:%%PORT_8080%%;

$locations
}

CONF


# ---- what a sender fills its templates with

my %filled = (
    PARTICLE_EVENT_NAME => 'demo', PARTICLE_EVENT_VALUE => 'mydata',
    PARTICLE_DEVICE_ID => '3f002b000000000000000000',
    PARTICLE_PUBLISHED_AT => '2017-02-01T21:08:05.763Z',
    PARTICLE_EVENT_ID => '0d8a1c5e-4f3b-4a0b-9a53-51f6b26bf1d2',
    PRODUCT_ID => '1319', PRODUCT_VERSION => '3', PRODUCT_USER_ID => 'u',

    device => '1A2B3C', time => '1533980400', data => '0123', seqNumber => 42,
    ack => 'false', duplicate => 'false', snr => '15.12', station => '0D4F',
    avgSnr => '20.1', lat => '48', lng => '2', rssi => '-124.00',
);


sub filled {
    my ($template) = @_;

    $template =~ s/\{\{\{(\w+)\}\}\}/$filled{$1} \/\/ die "$1\n"/ge;
    $template =~ s/\{(\w+)\}/$filled{$1} \/\/ die "$1\n"/ge;

    return $template;
}


# printed(FILE, NAME): the body of a webhook as it is printed

my $value = qr/(?<json> [{\[] (?: [^][{}"]++ | (?&text) | (?&json) )*+ [}\]] )
               (?(DEFINE) (?<text> " (?: [^"\\] | \\. )*+ " ) )/xs;


sub printed {
    my ($file, $name) = @_;

    $text{$file} =~ /"name":\ \Q@{[ $json->encode($name) ]}\E .*?
                     ^\ {3}"body":\ $value/xsm
        or die "$file has no body of $name\n";

    return $+{json};
}


# ---- the expectations: by file, and what a webhook's name starts with

my $particle_demo = '{"data":"mydata","device_id":"3f002b000000000000000000",'
    . '"event":"demo","published_at":"2017-02-01T21:08:05.763Z"';

my %demo = (headers => \%secret, id => '3f002b000000000000000000',
            properties => { event => 'demo' }, body => "$particle_demo}",
            time => '2017-02-01T21:08:05.763Z',
            message_id => qr/^[0-9a-f]{64}$/);

my %lorawan = (headers => \%secret, id => '0101010101010101');
my %note = (headers => \%secret, id => 'dev:864475040523995');

my %want = (
    particle => {
        'default form POST' => \%demo,
        'default JSON' => \%demo,
        'GET' => \%demo,
        'recommended custom JSON' => { %demo,
            body => "$particle_demo,\"fw_version\":\"3\"}",
            message_id => '0d8a1c5e-4f3b-4a0b-9a53-51f6b26bf1d2' },
        'full legacy JSON' => { headers => \%secret,
            id => '123456789938323536', properties => { event =>
            'temperature' }, time => '2017-09-28T21:54:10.897Z',
            message_id => qr/^[0-9a-f]{64}$/,
            # data as it is printed, blanks, 1266.0 and all
            body => sub {
                my ($data) = $_[0] =~ /"data":\ $value/x;
                return "{\"data\":$+{json},\"device_id\":"
                    . '"123456789938323536","event":"temperature",'
                    . '"published_at":"2017-09-28T21:54:10.897Z"}';
            } },
        'event-stream' => { headers => \%secret, uri =>
            '/particle/event-stream', id => '0123456789abcdef',
            properties => { event => 'temp' },
            time => '2014-05-28T19:20:51.638Z',
            message_id => qr/^[0-9a-f]{64}$/,
            body => '{"data":"25","device_id":"0123456789abcdef","event":'
                    . '"temp","published_at":"2014-05-28T19:20:51.638Z"}' },
    },

    'iotc-device-bridge' => {
        # its key in a header; in the query, as printed, nothing looks for it
        'bridge format' => { id => 'my-cloud-device',
            uri => '/iotc-device-bridge/api/IoTCIntegration',
            headers => { 'x-functions-key' => 'word' },
            message_id => qr/^[0-9a-f]{32}$/ },
        'bidirectional' => { uri => '/devices/dev-9/messages/events',
            headers => { 'x-api-key' => 'word' }, id => 'dev-9',
            properties => { prop1 => 'abc' },
            message_id => qr/^[0-9a-f]{32}$/,
            body => sub {
                $_[0] =~ /"data":\ $value/x;
                return $+{json};
            } },
    },

    'the-things-stack-v3' => {
        'uplink_message' => { headers => \%secret, id => 'app1.dev1',
            properties => { event => 'uplink_message' },
            time => '2020-02-12T15:15:46.014Z',
            message_id => 'as:up:01E0WZGT6Y7657CPFPE5WEYDSQ' },
        'join_accept' => { headers => \%secret, id => 'app1.dev1',
            properties => { event => 'join_accept' },
            time => '2020-02-17T07:49:09.935Z',
            message_id => 'as:up:01E191YN5F2HMBQCBCVRF731VY' },
    },

    'chirpstack-v4' => {
        'up' => { %lorawan, properties => { event => 'up' },
            time => '2022-07-18T09:34:15.775Z',
            message_id => '3ac7e3c4-4401-4b8d-9386-a5c902f9202d-up' },
        'join' => { %lorawan, properties => { event => 'join' },
            time => '2022-07-18T09:33:28.823Z',
            message_id => 'c9dbe358-2578-4fb7-b295-66b44edc45a6-join' },
        'status' => { %lorawan, properties => { event => 'status' },
            time => '2022-07-18T09:35:06.927Z',
            message_id => 'bf2a9746-1c8b-49be-a92e-f0b89c8534e4-status' },
    },

    sigfox => {
        'UnaConnect' => { id => '1A2B3C', properties => { event => 'data' },
            time => '2018-08-11T09:40:00.000Z',
            message_id => '1A2B3C-1533980400-42' },
        'classic' => { headers => { Authorization => 'Bearer TOKEN' },
            id => '1A2B3C', properties => { event => 'data' },
            time => '2018-08-11T09:40:00.000Z',
            message_id => '1A2B3C-1533980400-42' },
        'GET' => { headers => { Authorization => 'Bearer TOKEN' },
            id => '1A2B3C', properties => { event => 'data' },
            message_id => qr/^[0-9a-f]{32}$/,
            body => '{"data":"0123","device_id":"1A2B3C","event":"data",'
                    . '"published_at":null}' },
        'BATCH_URL' => { uri => '/sigfox/batch', id => '1A2B3C', headers => {
            Authorization => 'Bearer TOKEN', 'Content-Type' => 'text/plain' },
            type => 'text/plain', message_id => qr/^[0-9a-f]{32}$/ },
    },

    'blues-notehub' => {
        'note.add' => { %note, properties => { event => 'sensors.qo' },
            time => '2022-11-28T20:34:55.000Z',
            message_id => 'e98c2c3b-edbe-4fe7-af57-2196cc843eb7' },
        'session event' => { %note, properties => { event => '_session.qo' },
            time => '2022-11-28T20:35:07.000Z',
            message_id => '81bd2bf1-0399-4978-bc46-8f779b4af350' },
    },

    cloudevents => {
        'validation handshake' => { headers => \%secret, answer => {
            'webhook-allowed-origin' => 'eventemitter.example.com',
            'webhook-allowed-rate' => '*', 'allow' => 'POST' } },
        'structured mode' => { headers => \%secret,
            id => 'LogicAppTestDevice',
            properties => { event => 'Microsoft.Devices.DeviceTelemetry' },
            time => '2019-01-07T20:58:30.480Z',
            message_id => qr/^[0-9a-f]{64}$/ },
        # what the specification prints in place of JSON is none
        'binary mode' => { headers => \%secret, id => 'subcontext',
            sent => '{"t": 0.10}', properties => { event =>
            'com.example.someevent' }, time => '2018-04-05T03:56:24.000Z',
            message_id => qr/^[0-9a-f]{64}$/ },
        'batch mode' => { headers => \%secret, each => [
            { id => '1', properties => { event => 'com.example.someevent' },
              message_id => qr/^[0-9a-f]{64}$/ },
            { id => '2', properties => { event =>
              'com.example.someotherevent' },
              message_id => qr/^[0-9a-f]{64}$/ },
        ] },
    },

    'azure-eventgrid' => {
        'SubscriptionValidation' => { headers => \%secret, answer => {
            'content-type' => 'application/json' } },
        'DeviceTelemetry' => { headers => \%secret, each => [
            { id => 'LogicAppTestDevice',
              properties => { event => 'Microsoft.Devices.DeviceTelemetry' },
              time => '2019-01-07T20:58:30.480Z',
              message_id => '9af86784-8d40-fe2g-8b2a-bab65e106785' },
        ] },
    },

    github => {
        # the file holds a vector of a signature, but not of this webhook's
        'ping' => { sign => sub {
                'X-Hub-Signature-256' => 'sha256='
                    . hmac_sha256_hex($_[0], $github_key);
            },
            id => 'repository-186853261', properties => { event => 'ping' },
            message_id => '72d3162e-cc78-11e3-81ab-4c9367dc0958' },
    },

    stripe => {
        'stripe-node' => { id => 'own-account',
            message_id => 'evt_test_webhook' },
    },

    'standard-webhooks' => {
        # nor was the key of this one published
        'spec example' => { sign => sub {
                'webhook-signature' => 'v1,' . hmac_sha256_base64(
                    "msg_2KWPBgLlAfxdpx2AI54pPJ85f4W.1674087231.$_[0]",
                    decode_base64($whsec =~ s/^whsec_//r)) . '=';
            },
            id => '1f81eb52-5198-4599-803e-771906343485',
            properties => { event => 'contact.created' },
            time => '2023-01-19T00:13:51.000Z',
            message_id => 'msg_2KWPBgLlAfxdpx2AI54pPJ85f4W' },
        'svix' => { uri => '/standard-webhooks/svix', id => 'svix',
            time => '2021-02-25T15:02:10.000Z',
            message_id => 'msg_p5jXN8AQM9LWM0D4loKWxJek' },
    },
);


# body(FILE, WEBHOOK): what its sender sends

sub body {
    my ($file, $webhook) = @_;

    return $webhook->{body_raw} if defined $webhook->{body_raw};
    return printed($file, $webhook->{name}) if $webhook->{body};

    my $lines = $webhook->{line_template};

    return filled($webhook->{template}) if defined $webhook->{template};
    return filled("$lines\n$lines\n") if defined $lines;

    return undef;
}


# arrived(NAME, MESSAGE, BODY, WANT)

sub arrived {
    my ($name, $message, $body, $want) = @_;

    my $h = $message->{headers};
    my %properties = map { /^iothub-app-(.+)/ ? ($1 => $h->{$_}) : () }
        keys %$h;
    my $expected = ref $want->{body} ? $want->{body}->($body)
        : $want->{body} // $body;

    is($message->{device}, $want->{id}, "$name: the device");
    is_deeply(\%properties, $want->{properties} // {},
              "$name: the properties");
    is($h->{'iothub-creationtimeutc'}, $want->{time}, "$name: the time");
    is($h->{'iothub-contenttype'}, $want->{type} // 'application/json',
       "$name: the content type");
    is($message->{body}, $expected, "$name: the body");

    ref $want->{message_id}
        ? like($h->{'iothub-messageid'}, $want->{message_id}, "$name: the id")
        : is($h->{'iothub-messageid'}, $want->{message_id}, "$name: the id");
}


# elements(JSON array): the texts of its elements

sub elements {
    my ($array) = @_;

    my ($inner) = $array =~ /^\[(.*)\]$/s;
    my @elements;

    push @elements, $+{json} while $inner =~ /$value/g;

    return @elements;
}


sub runs {
    my ($file, $webhook, $want) = @_;

    my $name = "$file, $webhook->{name}";
    my $body = $want->{sent} // body($file, $webhook);
    my ($method) = ($webhook->{method} // 'POST') =~ /(\w+)$/;
    my $path = $webhook->{path_template} ? filled($webhook->{path_template})
        : $webhook->{path} // '/';
    my $uri = $want->{uri} // "/$file$path";

    # the harness knows where it connects to and how much it sends
    my %headers = map { /^(?:host|content-length)$/i ? ()
                        : ($_ => $webhook->{headers}{$_}) }
        keys %{ $webhook->{headers} // {} };

    %headers = (%headers, %{ $want->{headers} // {} },
                $want->{sign} ? $want->{sign}->($body) : ());

    $hub->forget;

    my $answer = $t->request($method, $uri, headers => \%headers,
                             defined $body ? (body => $body) : ());

    # nobody is let in without what the sender shows
    my $proof = qr/^(?: x-secret | x-(?:api|functions)-key | authorization
                        | .*-signature(?:-256)? )$/ix;
    my ($shown) = grep { /$proof/ } keys %headers;
    my %less = %headers;
    delete $less{$shown};

    is($t->request($method, $uri, headers => \%less, defined $body
                   ? (body => $body) : ())->{status}, 401,
       "$name: not without $shown");

    if (my $expected = $want->{answer}) {
        is($answer->{status}, $webhook->{expect_response}{status},
           "$name: the status");
        is($answer->{headers}{$_}, $expected->{$_}, "$name: $_")
            for sort keys %$expected;
        is_deeply($json->decode($answer->{body}),
                  $webhook->{expect_response}{body}, "$name: the answer")
            if $webhook->{expect_response}{body};
        is(scalar $hub->journal, 0, "$name: no hub call");
        return;
    }

    is($answer->{status}, 204, "$name: delivered");
    is($answer->{body}, '', "$name: an empty answer");

    my @sent = $hub->journal(op => 'send', accepted => 1);
    my @each = $want->{each} ? @{ $want->{each} } : $want;
    my @bodies = $want->{each} ? elements($body) : $body;

    is(scalar @sent, scalar @each, "$name: messages");
    is(scalar @bodies, scalar @each, "$name: events");

    @sent = sort { $a->{device} cmp $b->{device} } @sent;
    arrived($name, $sent[$_], $bodies[$_], $each[$_]) for 0 .. $#each;
}


for my $file (sort keys %file) {
    my %rest = %{ $want{$file} // {} };

    for my $webhook (@{ $file{$file}{requests} }) {
        my ($start) = grep { index($webhook->{name}, $_) == 0 } keys %rest;

        ok(defined $start, "$file, $webhook->{name}: is tried") or next;
        runs($file, $webhook, delete $rest{$start});
    }

    is_deeply([sort keys %rest], [], "$file: all are there");
}

is_deeply([sort keys %want], [sort keys %file], 'of every file');

$t->done;
