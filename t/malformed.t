#!/usr/bin/perl

# Webhooks that are not what they say, or name no device: a clear answer that
# quotes none of them, and no call to the hub.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

my $form = 'application/x-www-form-urlencoded';
my $json = 'application/json';
my $marker = 'MARKER7291';

$t->nginx($hub->block('register missing rate=off;') . <<'CONF');

    iothub_secret off;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass contoso; }
        location /polite { iothub_rejected 200; iothub_pass contoso; }
        location /hex {
            iothub_device_pattern '[0-9a-f]{24}';
            iothub_pass contoso;
        }
    }

CONF


sub refused {
    my ($name, $status, $code, $answer) = @_;

    is($answer->{status}, $status, "$name: $status");
    is($answer->{headers}{'content-type'}, 'application/problem+json',
       "$name: a problem document");

    my $problem = eval { decode_json($answer->{body}) } // {};

    is($problem->{code}, $code, "$name: $code");
    is($problem->{status}, $status, "$name: its status");
    ok(length($problem->{title} // '') && length($problem->{detail} // ''),
       "$name: title and detail");
    unlike($answer->{raw}, qr/$marker/, "$name: quotes nothing");
}

my $long = '[' x 100_000;

my @json = (
    ['broken', qq({"coreid":"$marker","event":)],
    ['no JSON', "$marker"],
    ['a scalar', qq("$marker")],
    ['empty', ''],
    ['text behind', qq({"coreid":"$marker"} x)],
    ['duplicate member', qq({"coreid":"$marker","coreid":"b"})],
    ['duplicate member, escaped', qq({"coreid":"$marker","\\u0063oreid":"b"})],
    ['duplicate deep inside', qq({"coreid":"$marker","d":[{"a":1,"a":2}]})],
    ['bad UTF-8', qq({"coreid":"$marker","data":"\xff"})],
    ['a surrogate alone', qq({"coreid":"$marker","data":"\\ud800"})],
    ['nesting bomb', qq({"coreid":"$marker","data":$long)],
    ['closed nesting bomb',
     qq({"coreid":"$marker","data":$long) . (']' x 100_000) . '}'],
    ['NUL', qq({"coreid":"$marker","data":"a\0b"})],
    ['NUL behind a number', qq({"coreid":"$marker","data":1\0})],
    ['\u0000', qq({"coreid":"$marker","data":"\\u0000"})],
    ['byte order mark', qq(\xef\xbb\xbf{"coreid":"$marker"})],
    ['1e400', qq({"coreid":"$marker","data":1e400})],
    ['a number of 400 digits', qq({"coreid":"$marker","data":)
        . ('9' x 400) . '}'],
    ['quotes in quotes', qq({"coreid":"$marker","data":"{"t":1}"})],
);

my @form = (
    ['bad escape', "coreid=$marker&data=%zz"],
    ['cut escape', "coreid=$marker&data=%4"],
    ['NUL', "coreid=$marker&data=a\0b"],
    ['%00', "coreid=$marker&data=%00"],
    ['bad UTF-8', "coreid=$marker&data=%ff"],
    ['duplicate', "coreid=$marker&coreid=b"],
    ['duplicate, escaped', "coreid=$marker&%63oreid=b"],
    ['too many pairs', "coreid=$marker&" . join '&', map { "a$_=1" } 1 .. 2000],
);

subtest 'malformed JSON' => sub {
    refused($_->[0], 400, 'malformed',
            $t->post('/', $_->[1], 'Content-Type' => $json)) for @json;
};

subtest 'malformed forms' => sub {
    refused($_->[0], 400, 'malformed',
            $t->post('/', $_->[1], 'Content-Type' => $form)) for @form;
};

subtest 'malformed queries' => sub {
    refused($_->[0], 400, 'malformed', $t->get("/?$_->[1]")) for (
        ['bad escape', 'coreid=%zz&event=e'],
        ['%00', 'coreid=a%00&event=e'],
        ['twice', 'coreid=a&coreid=b&event=e'],
    );
};

subtest 'rejected' => sub {
    my %ids = (
        'no id' => '',
        'an empty id' => 'coreid=',
        'a blank' => "coreid=$marker%20b",
        'a slash' => "coreid=$marker/b",
        'non-ASCII' => "coreid=$marker%C3%A9",
        'a quote' => "coreid=$marker%22",
        '129 characters' => 'coreid=' . 'a' x 129,
        'dot' => 'coreid=.',
        'dots' => 'coreid=..',
        'CR LF in the id' => "coreid=a%0d%0aX-Evil:%20$marker",
        'CR LF in the event' => "coreid=a&event=b%0d%0aX-Evil:%20$marker",
        'a tab in the time' => 'coreid=a&event=b&published_at=%09',
        'a control in the message id' => 'coreid=a&event=b&event_id=%1b',
        'DEL in the event' => 'coreid=a&event=b%7f',
    );

    refused($_, 422, 'rejected',
            $t->post('/', ($ids{$_} ? "$ids{$_}&" : '') . 'data=1',
                     'Content-Type' => $form)) for sort keys %ids;

    refused('null as an id', 422, 'rejected',
            $t->post('/', '{"coreid":null}', 'Content-Type' => $json));
    refused('an object as an id', 422, 'rejected',
            $t->post('/', '{"coreid":{"a":1}}', 'Content-Type' => $json));
    refused('an array of webhooks', 422, 'rejected',
            $t->post('/', '[{"coreid":"a"}]', 'Content-Type' => $json));

    my $id = '0123456789abcdef01234567';

    refused("pattern: $_", 422, 'rejected',
            $t->post('/hex', "coreid=$_&event=e", 'Content-Type' => $form))
        for "${id}8", "x$id", "${id}%0a", 'api', uc $id;
};

subtest 'methods and media types' => sub {
    for my $method (qw(DELETE PATCH OPTIONS)) {
        my $answer = $t->request($method, '/', headers => {});

        refused($method, 405, 'method_not_allowed', $answer);
        is($answer->{headers}{allow}, 'POST, PUT, GET', "$method: Allow");
    }

    my $head = $t->request('HEAD', '/?coreid=a', headers => {});

    is($head->{status}, 405, 'HEAD: 405');
    is($head->{body}, '', 'HEAD: no body');

    refused($_, 415, 'unsupported_media_type',
            $t->post('/', "coreid=$marker", 'Content-Type' => $_)) for
        'text/plain', 'multipart/form-data; boundary=x', 'application/xml',
        'application/json; charset=utf-16', 'application/jsonx', 'json';

    refused('Content-Encoding', 415, 'unsupported_media_type',
            $t->post('/', "coreid=$marker", 'Content-Type' => $form,
                     'Content-Encoding' => 'gzip'));
    refused('a second Content-Encoding', 415, 'unsupported_media_type',
            $t->request('POST', '/', body => "coreid=$marker", headers => [
                'Content-Type' => $form, 'Content-Encoding' => 'identity',
                'Content-Encoding' => 'gzip']));
};

subtest 'iothub_rejected' => sub {
    for my $body ('{', '{"coreid":""}') {
        my $answer = $t->post('/polite', $body, 'Content-Type' => $json);

        is($answer->{status}, 200, "$body: 200");
        is($answer->{body}, '', "$body: nothing to pay for");
    }

    is($t->request('DELETE', '/polite', headers => {})->{status}, 405,
       'not for a method');
};

is(scalar(my @calls = $hub->journal), 0, 'no call to the hub');
unlike($t->error_log(no_debug => 1), qr/$marker/, 'the log quotes nothing');

is($t->post('/hex', 'coreid=0123456789abcdef01234567&event=e')->{status}, 204,
   'and a good one is delivered');

ok($t->reload(undef, wait_old => 1), 'reload with a pattern');
is($t->post('/hex', 'coreid=0123456789abcdef01234567&event=e')->{status}, 204,
   'still delivered');

$t->done;
