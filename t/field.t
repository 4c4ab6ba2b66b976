#!/usr/bin/perl

# iothub_field: variables of the user's own, from anywhere in a webhook, of
# use wherever nginx takes variables.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

(my $second = $hub->block('zone 1m;')) =~ s/contoso/second/;

$t->nginx("$second\n" . <<'CONF');

    %%IOTHUB%%

    iothub_secret off;

    iothub_field $number   json:/n;
    iothub_field $big      json:/ids/0;
    iothub_field $second   json:/ids/1;
    iothub_field $escaped  json:/a~1b/m~0n;
    iothub_field $object   json:/o;
    iothub_field $root     json:;
    iothub_field $form     form:f;
    iothub_field $query    query:q;
    iothub_field $header   header:X-Device-Name;
    iothub_field $all      body;
    iothub_field $any      name;
    iothub_field $first    json:/one form:two query:three header:X-Four
                           default=none;
    iothub_field $text     json:/text;
    iothub_field $raw      json:/text raw;
    iothub_field $product  json:/product query:product;
    iothub_field $app      json:/app;
    iothub_field $value    json:/value raw;

    map $product $chosen {
        default  contoso;
        two      second;
        nowhere  "";
    }

    map $iothub_event $by_event { default contoso; ~^alarm second; }
    map $iothub_device_id $by_device { default contoso; ~^two- second; }

    limit_req_zone $query zone=limit:1m rate=1r/m;

    log_format fields 'n=$number|$big|$second|$escaped|$object|$root|'
                      'f=$form|$query|$header|$any|$first|$product';
    access_log %%TESTDIR%%/access.log fields;

    # without "volatile": nobody asked for it early by its name

    map $iothub_event $early_event { default "<$iothub_event>"; }

    log_format hubs '$iothub_device_id=$iothub_hub $iothub_result '
                    '$iothub_detail';
    access_log %%TESTDIR%%/hubs.log hubs;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / {
            iothub_pass $chosen;
            iothub_property number $number;
            iothub_property big $big;
            iothub_property second $second;
            iothub_property escaped $escaped;
            iothub_property object $object;
            iothub_property form $form;
            iothub_property query $query;
            iothub_property header $header;
            iothub_property any $any;
            iothub_property first $first;
            add_header X-Text "[$text]" always;
            add_header X-Number "[$number]" always;
        }

        location /headers {
            iothub_pass contoso;
            iothub_filter $iothub_data;
            add_header X-Data "[$iothub_data]" always;
            add_header X-Body "[$iothub_body]" always;
        }

        location /early {
            iothub_device_id $http_x_device;
            iothub_event $early_event;
            iothub_pass contoso;

            if ($iothub_device_id = stop) { return 403; }
            if ($iothub_event = "<stop>") { return 403; }
        }

        location /built {
            iothub_device_id "$app-$product";
            iothub_message escape=json '{"all":$all,"text":"$raw"}';
            iothub_pass contoso;
        }

        location /by-event { iothub_pass $by_event; }
        location /by-device { iothub_pass $by_device; }

        location /template {
            iothub_message '{"in":"<$value>","out":$value}';
            iothub_pass contoso;
        }

        location /broken {
            iothub_message escape=none '{"v":$value';
            iothub_pass contoso;
        }

        location /text {
            iothub_message '{"v":$value';
            iothub_content_type text/plain;
            iothub_pass contoso;
        }

        location /limited {
            limit_req zone=limit nodelay;
            limit_req_status 429;
            iothub_pass contoso;
        }

        location /if {
            if ($query = stop) {
                return 403 $query;
            }

            if ($number) {
                return 418;
            }

            iothub_pass contoso;
        }

        location /plain {
            return 200 "q=$query h=$header n=$number b=$all";
        }
    }

CONF


sub json {
    my ($uri, $body, %headers) = @_;

    return $t->request(POST => $uri, body => $body,
        headers => { 'Content-Type' => 'application/json', %headers });
}


# what arrived of a device: properties, and the body

sub arrived {
    my ($device) = @_;

    my ($message) = reverse $hub->journal(op => 'send', device => $device,
                                          accepted => 1);
    my %got = map { /^iothub-app-(.+)/ ? ($1 => $message->{headers}{$_}) : () }
        keys %{ $message->{headers} };

    return (\%got, $message->{body});
}


# ---- where a value may lie

is(json('/?q=a%20b%2Bc&name=query', '{"coreid":"d1","event":"e","n":0.10,'
        . '"ids":[18446744073709551616,"x"],"a/b":{"m~n":"tilde"},'
        . '"o":{"k": [1, 2]}}', 'X-Device-Name' => 'the name')->{status}, 204,
   'JSON: delivered');

my ($got) = arrived('d1');

is_deeply($got, { number => '0.10', big => '18446744073709551616',
                  second => 'x', escaped => 'tilde', object => '{"k": [1, 2]}',
                  query => 'a b+c', header => 'the name', any => 'query',
                  first => 'none' },
          'JSON: values as they were written');

is($t->post('/', 'coreid=d2&event=e&f=x%2By+z&name=form&two=2')->{status},
   204, 'form: delivered');
($got) = arrived('d2');
is_deeply($got, { form => 'x+y z', any => 'form', first => '2' },
          'form: values decoded');

is($t->get('/?coreid=d3&event=e&name=query&three=3')->{status}, 204,
   'query: delivered');
($got) = arrived('d3');
is_deeply($got, { any => 'query', first => '3' }, 'query: values decoded');

ok($t->wait_for_log(qr/^n=0\.10\|18446744073709551616\|x\|tilde\|/,
                    file => 'access.log'), 'in the access log, too');


# ---- the first that yields something

for my $case (
    ['1', '{"coreid":"f1","event":"e","one":1}'],
    ['4', '{"coreid":"f1","event":"e"}', 'X-Four' => 4],
    ['4', '{"coreid":"f1","event":"e","one":null}', 'X-Four' => 4],
    ['4', '{"coreid":"f1","event":"e","one":""}', 'X-Four' => 4],
    ['none', '{"coreid":"f1","event":"e","one":null}'],
    ['false', '{"coreid":"f1","event":"e","one":false}'],
) {
    my ($expected, $body, @headers) = @$case;

    is(json('/', $body, @headers)->{status}, 204, "$body: delivered");
    ($got) = arrived('f1');
    is($got->{first}, $expected, "$body: $expected");
}

is(json('/', '{"coreid":"f1","event":"e","n":null}')->{status}, 204,
   'null and no default: delivered');
($got) = arrived('f1');
is($got->{number}, 'null', 'null and no default: null');


# ---- no header of its own

my $answer = json('/', '{"coreid":"h1","event":"e","text":"a\r\nX-Own: 1"}');

is($answer->{status}, 204, 'controls: delivered');
is($answer->{headers}{'x-text'}, '[a\r\nX-Own: 1]', 'controls: escaped');
ok(!exists $answer->{headers}{'x-own'}, 'controls: no header');

for my $status (204, 422) {
    my $id = $status == 204 ? 'h1' : 'h 1';

    $answer = json('/headers', qq({"coreid":"$id",\r\n"data":)
                   . '"a\r\nX-Own: 1"}');

    is($answer->{status}, $status, "all of it: $status");
    is($answer->{headers}{'x-data'}, '[a\r\nX-Own: 1]',
       "all of it, $status: data escaped");
    is($answer->{headers}{'x-body'}, qq([{\\"coreid\\":\\"$id\\",)
       . '\r\n\"data\":\"a\\\\r\\\\nX-Own: 1\"}]',
       "all of it, $status: body escaped");
    ok(!exists $answer->{headers}{'x-own'}, "all of it, $status: no header");
}


# ---- in nginx's own directives

is($t->get('/if?q=stop')->{status}, 403, 'query in "if"');
is(json('/if?q=go', '{"coreid":"i1","event":"e","n":5}')->{status}, 204,
   'the body is not known in "if"');

for my $case ([403, '/early', 'stop', 'the id of a header'],
              [204, '/early?coreid=stop', 'e1', 'the id of the source'],
              [403, '/early?event=stop', 'e1', 'the event of the query'],
              [204, '/early', 'e1', 'the event of the body'])
{
    my ($status, $uri, $id, $name) = @$case;

    $answer = json($uri, '{"event":"stop"}', 'X-Device' => $id);
    is($answer->{status}, $status, "overrides in \"if\": $name");
}

($got) = $hub->messages(device => 'e1');
like($got->{body}, qr/"event":"<stop>"/, 'overrides in "if": made again');

$answer = $t->get('/plain?q=x');
is($answer->{body}, 'q=x h= n= b=', 'and not in other locations');

is($t->post('/limited?q=a', 'coreid=l1&event=e')->{status}, 204, 'limit_req');
is($t->post('/limited?q=a', 'coreid=l1&event=e')->{status}, 429,
   'limit_req: the same value');
is($t->post('/limited?q=b', 'coreid=l1&event=e')->{status}, 204,
   'limit_req: another value');

is($t->get('/?coreid=r1&event=e&product=two')->{status}, 204, 'routed');
is(json('/', '{"coreid":"r2","event":"e","product":"two"}')->{status}, 204,
   'routed by the body');
is(json('/', '{"coreid":"r3","event":"e","product":"nowhere"}')->{status},
   503, 'routed nowhere');
json('/', '{"coreid":"r4","event":"e","product":"three"}');
json("/by-$_->[0]", qq({"coreid":"$_->[1]","event":"$_->[2]"}))
    for ['event', 'r5', 'alarm/door'], ['event', 'r6', 'temp'],
        ['device', 'two-7', 'temp'], ['device', 'one-8', 'alarm'];

for my $line ('r1=second delivered', 'r2=second delivered',
              'r3=- misconfigured', 'r4=contoso delivered',
              'r5=second delivered', 'r6=contoso delivered',
              'two-7=second delivered', 'one-8=contoso delivered')
{
    ok($t->wait_for_log(qr/^\Q$line\E/m, file => 'hubs.log'), "routed: $line");
}


# ---- built from fields

is(json('/built', '{"app":"a","product":7,"event":"e","text":"q\" b\\\\ n\n"}')
   ->{status}, 204, 'an id of two parts: delivered');
(undef, my $body) = arrived('a-7');
is($body, '{"all":{"app":"a","product":7,"event":"e","text":"q\" b\\\\ n\n"},'
   . '"text":"q\" b\\\\ n\n"}', 'a message of fields: escaped once');


# a value between quotes is the text of a string, elsewhere it is the JSON
# that it is, or else a string

for my $case (
    ['"text"', '<text>', '"text"'],
    ['"say \"hi\" \\\\ \u00e9\n"', qq(<say \\"hi\\" \\\\ \xc3\xa9\\n>),
     qq("say \\"hi\\" \\\\ \xc3\xa9\\n")],
    ['"\",\"x\":\""', '<\",\"x\":\">', '"\",\"x\":\""'],
    ['"5"', '<5>', '5'],
    ['"null"', '<null>', 'null'],
    ['0.10', '<0.10>', '0.10'],
    ['18446744073709551616', '<18446744073709551616>',
     '18446744073709551616'],
    ['{"k": ["v", 1.0]}', '<{\"k\": [\"v\", 1.0]}>', '{"k": ["v", 1.0]}'],
    ["{\n \"k\":\t1\n}", '<{\n \"k\":\t1\n}>', "{\n \"k\":\t1\n}"],
    ['"{broken"', '<{broken>', '"{broken"'],
    ['true', '<true>', 'true'],
    ['""', '<>', '""'],
) {
    my ($value, $in, $out) = @$case;
    my $name = ($value =~ s{\s+}{ }gr) . ' in a template';

    is(json('/template', qq({"coreid":"m1","event":"e","value":$value}))
       ->{status}, 204, "$name: delivered");
    (undef, $body) = arrived('m1');
    is($body, qq({"in":"$in","out":$out}), $name);
}

$answer = json('/broken', '{"coreid":"m2","event":"e","value":1}');
is($answer->{status}, 422, 'a template that makes no JSON: 422');
like($answer->{body}, qr/"code":"rejected"/, '... rejected');
ok($t->wait_for_log(qr/^m2=contoso\ rejected\ iothub_message\ made\ no
                       \ JSON\ of\ this\ webhook/mx, file => 'hubs.log'),
   '... which the log says');
is(scalar $hub->journal(device => 'm2'), 0, '... and sent to nobody');
is(json('/text', '{"coreid":"m3","event":"e","value":1}')->{status}, 204,
   'the same as text: delivered');
(undef, $body) = arrived('m3');
is($body, '{"v":1', '... as it is');


# ---- wrong configurations

for my $case (
    ['iothub_field name json:/a;', qr/invalid variable name "name" (?x:
                                     )in iothub_field: write/],
    ['iothub_field $x;', qr/invalid number of arguments/],
    ['iothub_field $x raw;', qr/"\$x" has no locator: write json:/],
    ['iothub_field $x jsn:/a;', qr/invalid locator "jsn:\/a": it has to be/],
    ['iothub_field $x json:a;', qr/invalid locator "json:a": /],
    ['iothub_field $x json:/a~2;', qr/invalid locator "json:\/a~2": /],
    ['iothub_field $x form:;', qr/invalid locator "form:": the name is empty/],
    ['iothub_field $x a default=1 default=2;', qr/"default=" is there twice/],
    ['iothub_field $x a; iothub_field $x b;', qr/a variable "\$x" already/],
    ['iothub_field $iothub_event a;',
     qr/a variable "\$iothub_event" already/],
    ['server { iothub_field $x a; }',
     qr/"iothub_field" directive is not allowed here/],
) {
    my ($text, $expected) = @$case;

    my ($exit, $output) = $t->nginx_t("%%IOTHUB%%\n$text\n");

    isnt($exit, 0, "$text: refused");
    like($output, $expected, "$text: said why");
    like($output, qr/test-\d+\.conf:\d+/, "$text: and where");
}

$t->done;
