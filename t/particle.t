#!/usr/bin/perl

# Particle's webhooks, in every shape they come, and what of them arrives in
# the hub, byte for byte.

use strict;
use warnings;
use utf8;

use FindBin;
use lib "$FindBin::Bin/lib";
use Encode qw(encode_utf8);
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

my $form = 'application/x-www-form-urlencoded';
my $json = 'application/json';

$t->nginx($hub->block('register missing rate=off;') . <<'CONF');

    iothub_secret off;
    client_max_body_size 2m;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass contoso; }

        location /tiny {
            client_body_buffer_size 1k;
            iothub_pass contoso;
        }

        location /file {
            client_body_in_file_only clean;
            iothub_pass contoso;
        }
    }

CONF

my $last = 0;


# the message that a webhook made, if it made just one

sub arrived {
    my @messages = grep { $_->{n} > $last } $hub->messages;

    $last = $messages[-1]{n} if @messages;

    return @messages == 1 ? $messages[0] : { device => scalar @messages };
}


sub delivered {
    my ($name, $answer, $device, $body) = @_;

    my $message = arrived();

    is($answer->{status}, 204, "$name: 204");
    is($answer->{body}, '', "$name: no body in the answer");
    is($message->{device}, $device, "$name: device");
    is($message->{body}, $body, "$name: message") if defined $body;

    return $message;
}


sub particle {
    my ($data, $id, $event, $time, $rest) = @_;

    return qq({"data":$data,"device_id":"$id","event":$event,)
        . qq("published_at":$time) . ($rest // '') . '}';
}


subtest 'the documented requests' => sub {
    my $file = decode_json(do {
        open my $fh, '<', "$FindBin::Bin/payloads/particle.json" or die $!;
        local $/;
        <$fh>;
    });

    my ($default, $default_json, $custom, $legacy, $get)
        = @{ $file->{requests} };

    my $demo = particle('"mydata"', '3f002b000000000000000000', '"demo"',
                        '"2017-02-01T21:08:05.763Z"');

    is(length $default->{body_raw}, 96, 'the 96 bytes of the documents');

    my $m = delivered('form',
        $t->post('/', $default->{body_raw}, 'Content-Type' => $form),
        '3f002b000000000000000000', $demo);

    is($m->{system}{contenttype}, 'application/json', 'content type');
    is($m->{system}{contentencoding}, 'utf-8', 'content encoding');
    is($m->{system}{creationtimeutc}, '2017-02-01T21:08:05.763Z', 'time');
    like($m->{system}{messageid}, qr/^[0-9a-f]{64}$/, 'message id');

    delivered('JSON',
        $t->post('/', JSON::PP->new->canonical->encode($default_json->{body}),
                 'Content-Type' => $json),
        '3f002b000000000000000000', $demo);

    delivered('GET', $t->get($get->{path}), '3f002b000000000000000000',
              $demo);

    (my $text = $custom->{template}) =~ s/\{\{\{(\w+)\}\}\}/x-$1/g;
    $text =~ s/x-PARTICLE_DEVICE_ID/aabbcc/;

    $m = delivered('recommended template',
        $t->post('/', $text, 'Content-Type' => $json), 'aabbcc',
        particle('"x-PARTICLE_EVENT_VALUE"', 'aabbcc',
                 '"x-PARTICLE_EVENT_NAME"', '"x-PARTICLE_PUBLISHED_AT"',
                 ',"fw_version":"x-PRODUCT_VERSION"'));

    is($m->{system}{messageid}, 'x-PARTICLE_EVENT_ID', 'its message id');
    is($m->{system}{creationtimeutc}, undef, 'what is no time is left out');

    my $data = JSON::PP->new->encode($legacy->{body}{data});

    delivered('legacy JSON with an object',
        $t->post('/', '{"event":"temperature","data":' . $data
                 . ',"ttl":60,"published_at":"2017-09-28T21:54:10.897Z",'
                 . '"coreid":"123456789938323536","public":false}',
                 'Content-Type' => $json),
        '123456789938323536',
        particle($data, '123456789938323536', '"temperature"',
                 '"2017-09-28T21:54:10.897Z"'));
};


subtest 'methods, order, other fields' => sub {
    for my $method (qw(POST PUT)) {
        delivered($method,
            $t->request($method, '/', body => 'data=1&coreid=m&x=y&event=e',
                        headers => { 'Content-Type' => $form }),
            'm', particle('"1"', 'm', '"e"', 'null'));
    }

    delivered('POST with a query', $t->post('/?coreid=q&event=e', 'data=5',
                                            'Content-Type' => $form),
              'q', particle('"5"', 'q', '"e"', 'null'));

    delivered('POST with nothing but a query',
              $t->request('POST', '/?coreid=q&event=e&data=5', body => '',
                          headers => {}),
              'q', particle('"5"', 'q', '"e"', 'null'));

    delivered('the body before the query',
              $t->post('/?coreid=query', 'coreid=body&event=e',
                       'Content-Type' => $form),
              'body', particle('null', 'body', '"e"', 'null'));

    delivered('no Content-Type',
              $t->post('/', '{"coreid":"n","event":"e"}',
                       'Content-Type' => undef),
              'n', particle('null', 'n', '"e"', 'null'));
};


subtest 'data' => sub {
    my %json = (
        'missing' => ['', 'null'],
        'null' => [',"data":null', 'null'],
        'a number' => [',"data":0.10', '0.10'],
        'a large number' => [',"data":18446744073709551616',
                             '18446744073709551616'],
        'exponents' => [',"data":[1e2,-0,1.0E+2]', '[1e2,-0,1.0E+2]'],
        'key order' => [',"data":{"z":1,"a":2,"m":{"y":0,"b":0}}',
                        '{"z":1,"a":2,"m":{"y":0,"b":0}}'],
        'escapes' => [',"data":"\u00e9\/\"\n"', '"\u00e9\/\"\n"'],
        'blanks' => [',"data": { "a" : [ 1 , 2 ] }', '{ "a" : [ 1 , 2 ] }'],
        'true' => [',"data":true', 'true'],
        'empty' => [',"data":""', '""'],
    );

    for my $name (sort keys %json) {
        my ($in, $out) = @{ $json{$name} };

        delivered($name, $t->post('/', qq({"coreid":"d","event":"e"$in}),
                                  'Content-Type' => $json),
                  'd', particle($out, 'd', '"e"', 'null'));
    }

    my $utf8 = encode_utf8('Zürich 東京');

    delivered('non-ASCII JSON',
              $t->post('/', qq({"coreid":"d","event":"e","data":"$utf8"}),
                       'Content-Type' => "$json; charset=utf-8"),
              'd', particle(qq("$utf8"), 'd', '"e"', 'null'));

    delivered('%20, + and %2B of a form',
              $t->post('/', 'coreid=d&event=a%20b+c%2Bd&data=%C3%A9%22',
                       'Content-Type' => $form),
              'd', particle(qq("\xc3\xa9\\""), 'd', '"a b c+d"', 'null'));

    delivered('+json', $t->post('/', '{"coreid":"d","event":"e"}',
                                'Content-Type' => 'application/vnd.x+json'),
              'd', particle('null', 'd', '"e"', 'null'));
};


subtest 'sizes and buffers' => sub {
    for my $kb (16, 100) {
        my $data = join '', map { chr(33 + $_ % 90) } 1 .. $kb * 1024;
        (my $escaped = $data) =~ s/(["\\])/\\$1/g;
        (my $encoded = $data) =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;

        my $text = qq({"data":"$escaped","coreid":"big","event":"e"});
        my $body = particle(qq("$escaped"), 'big', '"e"', 'null');

        for my $uri (qw(/ /tiny /file)) {
            delivered("$kb KB of JSON to $uri",
                      $t->post($uri, $text, 'Content-Type' => $json),
                      'big', $body);

            delivered("$kb KB of form to $uri",
                      $t->post($uri, "event=e&data=$encoded&coreid=big",
                               'Content-Type' => $form),
                      'big', $body);

            delivered("$kb KB in chunks to $uri",
                      $t->post($uri, [unpack '(a5000)*', $text],
                               'Content-Type' => $json),
                      'big', $body);
        }
    }

    my $text = '{"coreid":"c","event":"e","data":"x"}';

    for my $uri (qw(/ /tiny /file)) {
        delivered("a byte a chunk to $uri",
                  $t->post($uri, [split //, $text], 'Content-Type' => $json),
                  'c', particle('"x"', 'c', '"e"', 'null'));
    }

    my ($head, $tail) = ("POST / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n"
        . "Content-Type: $json\r\nContent-Length: " . length($text)
        . "\r\n\r\n", $text);

    delivered('a body in pieces', $t->http([$head, unpack '(a7)*', $tail]),
              'c', particle('"x"', 'c', '"e"', 'null'));
};

$t->done;
