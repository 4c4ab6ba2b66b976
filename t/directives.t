#!/usr/bin/perl

# What nginx -t says of a wrong directive of those that say what webhooks are:
# the whole message, and that it points to the line.  See also config.t, which
# has the hub's directives, and good values.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;

$t->write_file('hub.key', 'c2VjcmV0IGtleSBvZiB0aGUgcG9saWN5IGdhdGV3YXk=');
$t->write_file('keys', "open sesame\n");


# the parts are lines of http{}, of the server and of the location

sub conf {
    my (%o) = @_;

    return join "\n", 'iothub contoso {', 'hostname localhost;', 'tls off;',
        'policy gateway;', 'key_file hub.key;', '}', $o{http} // '',
        'server {', 'listen 127.0.0.1:9;', 'location @old { return 200; }',
        $o{server} // '', 'location / {', 'iothub_pass contoso;',
        $o{location} // '', '}', '}', '';
}


# says(LINE, MESSAGE, PART): all of the emerg, which points to LINE

sub says {
    my ($line, $message, $part) = @_;

    my ($exit, $output) = $t->nginx_t(conf($part => $line));
    my ($said, $file, $n) = $output =~
        /\[emerg\] (?:\d+#\d+: )?(.*?),? in (\S+):(\d+)$/m
        or return fail("refused: $line") || diag($output);

    my @lines = split /\n/, $t->read_file($file);
    my $dir = $t->dir;

    $said =~ s/\Q$dir\E/DIR/g;

    is_deeply([$exit != 0, $said, $lines[$n - 1]], [1, $message, $line],
              "refused: $line");
}


subtest 'what is good passes' => sub {
    my ($exit, $output) = $t->nginx_t(conf(http => 'iothub_field $x a;',
        server => 'iothub_secret header=X file=keys;',
        location => 'iothub_target @old; iothub_property a $x;'));

    is($exit, 0, 'nginx -t');
    unlike($output, qr/\[(?:emerg|warn)\]/, 'not a word') or diag($output);
};


my $no_locator = '"$x" has no locator: write json:/pointer, form:name, '
    . 'query:name, header:name or body';
my $no_name = 'has to be json:/pointer, form:name, query:name, header:name, '
    . 'body, /pointer, or a name without a colon';
my $tilde = '"~" in a pointer has to be written "~0", and "/" in a name "~1"';

my $name = 'write "iothub_field $name LOCATOR...;", with letters, digits and '
    . '"_" in the name, and no digit first';
my $taken = 'already, of nginx or of another directive: give that of '
    . 'iothub_field another name';
my $off = 'write "header=NAME file=FILE", or "off"';

says($_->[0], $_->[1], 'http') for
    ['iothub_field name json:/a;', 'invalid variable name "name" in '
     . "iothub_field: $name"],
    ['iothub_field $ json:/a;',
     "invalid variable name \"\$\" in iothub_field: $name"],
    ['iothub_field $x;',
     'invalid number of arguments in "iothub_field" directive'],
    ['iothub_field $x raw;', $no_locator],
    ['iothub_field $x default=a raw;', $no_locator],
    ['iothub_field $x jsn:/a;', "invalid locator \"jsn:/a\": it $no_name"],
    ['iothub_field $x json:a;',
     'invalid locator "json:a": a pointer has to start with "/"'],
    ['iothub_field $x a json:/b~2;', "invalid locator \"json:/b~2\": $tilde"],
    ['iothub_field $x /b~;', "invalid locator \"/b~\": $tilde"],
    ['iothub_field $x a/b;', 'invalid locator "a/b": a pointer has to start '
     . 'with "/"; a name that holds one is written "json:/a~1b", "form:a/b" '
     . 'or "query:a/b"'],
    ['iothub_field $x "";', 'invalid locator "": the name is empty'],
    ['iothub_field $x form:;', 'invalid locator "form:": the name is empty'],
    ['iothub_field $x query:;', 'invalid locator "query:": the name is empty'],
    ['iothub_field $x header:;',
     'invalid locator "header:": the name is empty'],
    ['iothub_field $x "header:a b";',
     'invalid locator "header:a b": no header can have this name'],
    ['iothub_field $x a default=1 default=2;', '"default=" is there twice'],
    (map { ["iothub_field \$$_ a;", "invalid variable name \"\$$_\" in "
            . "iothub_field: $name"] } 'x-y', '1', '9a', '{x}', 'x.y'),
    ['iothub_field $x $arg_a;', 'invalid locator "$arg_a": it takes no '
     . 'variables; a member of this name is "json:/$arg_a"'],
    ['iothub_field $x a; iothub_field $X b;',
     "there is a variable \"\$X\" $taken"],
    (map { ["iothub_field \$$_ a;", "there is a variable \"\$$_\" $taken"] }
         qw(iothub_event iothub_result host args limit_rate upstream_addr)),
    ['map $arg_a $x { default 1; } iothub_field $x a;',
     "there is a variable \"\$x\" $taken"],
    ['iothub_field $x a; map $arg_a $x { default 1; }',
     'the duplicate "x" variable'];

says('iothub_field $x a;', '"iothub_field" directive is not allowed here', $_)
    for 'server', 'location';

my $array = 'an array is in JSON only, write json:/pointer, or "json:" for '
    . 'all of the body';
my $sources = 'write "particle", "the-things-stack", "chirpstack", "sigfox", '
    . '"notehub", "cloudevents", "eventgrid", "device-bridge", or "custom"';
my $target = 'write "@name" or "/uri" of the location that has the '
    . 'proxy_pass, or "off"';
my $signature = 'write "file=FILE", and what the scheme takes of '
    . '"header=NAME", "prefix=TEXT", "encoding=hex" and "tolerance=5m", each '
    . 'once';
my $header = 'has a character that the hub does not take: write printable '
    . 'ASCII';
my $regex = '"iothub_device_pattern" directive needs the regular expression';
my $bad_header = 'has an invalid header name, write one such as '
    . '"header=X-Webhook-Secret"';
my $reserved = 'the property name is reserved by IoT Hub';

says($_->[0], $_->[1], 'location') for
    ['iothub_each form:a;', "invalid locator \"form:a\": $array"],
    ['iothub_each query:a;', "invalid locator \"query:a\": $array"],
    ['iothub_each header:a;', "invalid locator \"header:a\": $array"],
    ['iothub_each body;', "invalid locator \"body\": $array"],
    ['iothub_each json:a;',
     'invalid locator "json:a": a pointer has to start with "/"'],
    ['iothub_each jsn:/a;', "invalid locator \"jsn:/a\": it $no_name"],
    ['iothub_each json:/~;', "invalid locator \"json:/~\": $tilde"],
    ['iothub_each $v;', '"iothub_each" directive takes no variable: write '
     . 'json:/pointer'],
    ['iothub_each off;', '"iothub_each" directive cannot be switched off: '
     . 'write it only into the locations that need it; a member of this name '
     . 'is "json:/off"'],

    ['iothub_source pigeon;', "unknown source \"pigeon\", $sources"],
    ['iothub_source Custom;', "unknown source \"Custom\", $sources"],
    ['iothub_source $arg_source;', "unknown source \"\$arg_source\", $sources"],

    ['iothub_signature md5 file=keys;', 'unknown scheme "md5", write '
     . 'github, stripe, standard-webhooks or hmac-sha256'],
    ['iothub_signature github header=X;',
     '"iothub_signature" directive needs "file=FILE"'],
    (map { ["iothub_signature github file=keys $_;",
            "invalid parameter \"$_\": $signature"] }
         'file=keys', 'key=a', 'keys', 'headers=X'),
    ['iothub_signature github file=keys header=$h;',
     'invalid parameter "header=$h": no header has such a name'],
    ['iothub_signature github file=keys header=A header=B;',
     "invalid parameter \"header=B\": $signature"],
    ['iothub_signature github file=nowhere;',
     'open() "DIR/nowhere" failed (2: No such file or directory)'],
    ['iothub_signature github file=keys tolerance=5m;',
     'invalid parameter "tolerance=5m": the scheme signs no time; "stripe" '
     . 'and "standard-webhooks" do'],
    ['iothub_signature hmac-sha256 file=keys;',
     '"iothub_signature" directive needs "header=NAME" with this scheme'],
    ['iothub_signature standard-webhooks file=keys;',
     '"DIR/keys", line 1: not base64 after "whsec_", copy the secret '
     . 'whole'],

    ['iothub_target old;', "invalid target \"old\", $target"],
    ['iothub_target "";', "invalid target \"\", $target"],
    ['iothub_target @;', "invalid target \"@\", $target"],
    ['iothub_target off always;', "invalid target \"off\", $target"],
    ['iothub_target @old before;',
     'invalid parameter "before", write "after" or "always"'],
    ['iothub_target /a$uri;', 'variable in target "/a$uri", write "@name" and '
                              . 'choose by variables in that location'],

    ['iothub_match "";',
     '"iothub_match" directive needs prefixes that are not empty'],
    ['iothub_match a "" b;',
     '"iothub_match" directive needs prefixes that are not empty'],
    (map { ["iothub_match a $_;", '"iothub_match" directive takes no variables'
            . ': for these, write "iothub_filter" and a "map"'] }
         '$v', 'a$v', '${v}a', '$_'),

    ['iothub_filter "$";', 'invalid variable name'],

    ['iothub_message escape=xml $iothub_data;', 'invalid parameter '
     . '"escape=xml", write "escape=json" or "escape=none"'],
    ['iothub_message $iothub_data escape=json;', 'invalid parameter '
     . '"$iothub_data", write "escape=json" or "escape=none"'],
    ['iothub_message \'{"a":${iothub_data}\' escape=json b;',
     'invalid number of arguments in "iothub_message" directive'],
    ['iothub_message "$";', 'invalid variable name'],
    (map { ["iothub_message escape=$_;", '"iothub_message" directive needs a '
            . 'value after "escape="'] } 'json', 'none', 'xml', ''),

    ['iothub_device_pattern "";',
     '"iothub_device_pattern" directive needs a regular expression'],
    ['iothub_device_pattern $v;', '"iothub_device_pattern" directive takes no '
     . 'variables: write a regular expression, or "iothub_filter" and a "map"'],
    ['iothub_device_pattern ~^a;', "$regex alone, without \"~\""],
    ['iothub_device_pattern /^a/;', "$regex alone, without \"/\" around it"],
    ['iothub_device_id "";', 'invalid device id "": the device id is empty'],
    ['iothub_device_id "a b";', 'invalid device id "a b": the device id has a '
     . 'character that IoT Hub does not allow'],

    (map { ["iothub_$_ a\x07b;", "\"iothub_$_\" directive $header"] }
         qw(content_type content_encoding)),
    ["iothub_property a \xc3\xa9;", "\"iothub_property\" directive $header"],

    ['iothub_data_as xml;',
     '"iothub_data_as" directive must be "string" or "json"'],
    ['iothub_deadline soon;', '"iothub_deadline" directive has an invalid '
     . 'time, write for example "15s"'],
    ['iothub_deadline 0;', '"iothub_deadline" directive must be longer than '
     . 'nothing, write for example "15s"'],

    (map { ["iothub_property $_ x;", '"iothub_property" directive takes no '
            . 'variable as its name: write "iothub_property NAME $value;"'] }
         '$v', 'a$v', '${v}', '$_'),
    ['iothub_property "" x;',
     'invalid property name "": the property name is empty'],
    ['iothub_property "a b" x;', 'invalid property name "a b": the property '
     . 'name may hold only letters, digits and '
     . q(! # $ % & ' * + - . ^ _ ` | ~)],
    ['iothub_property iothub-to x;',
     "invalid property name \"iothub-to\": $reserved"],
    ['iothub_property connectionDeviceId x;',
     "invalid property name \"connectionDeviceId\": $reserved"],
    ['iothub_property a 1; iothub_property A 2;', 'duplicate property "A"'];

says($_->[0], $_->[1], 'location') for
    ['iothub_secret on;', "invalid parameter \"on\", $off"],
    ['iothub_secret header=X;', '"iothub_secret" directive needs "header=NAME '
                                . 'file=FILE", or "off"'],
    ['iothub_secret header=X: file=keys;',
     "\"iothub_secret\" directive $bad_header"],
    ['iothub_secret header=$h file=keys;',
     "\"iothub_secret\" directive $bad_header"],
    ['iothub_secret header=X file=nowhere;',
     'open() "DIR/nowhere" failed (2: No such file or directory)'],
    ['iothub_secret off off;', "invalid parameter \"off\", $off"];

says("iothub_$_;", "invalid number of arguments in \"iothub_$_\" directive",
     'location')
    for qw(each source target match filter secret message property signature);

says("iothub_$_->[0] $_->[1]; iothub_$_->[0] $_->[1];",
     "\"iothub_$_->[0]\" directive is duplicate", 'location')
    for ['each', 'json:/a'], ['source', 'custom'], ['target', '@old'],
        ['match', 'a'], ['filter', '1'], ['secret', 'off'], ['message', 'a'],
        ['signature', 'github file=keys'];

# targets that lead back, each by another way to find a location

my $back = 'leads back to its own iothub_pass, write "@name" or "/uri" of '
    . 'another location';
my $hook = 'iothub_pass contoso; iothub_secret off; }';

says($_->[0], "iothub_target \"$_->[1]\" $back", 'server') for
    ["location = /a { iothub_target /a; $hook", '/a'],
    ["location /a { iothub_target /a/b?c; $hook", '/a/b'],
    ["location ^~ /a { iothub_target /abc; $hook", '/abc'],
    ["location ~ b\$ { iothub_target /ab; $hook", '/ab'],
    ["location ^~ /a { iothub_target /ab; $hook location ~ b { return 200; }",
     '/ab'],
    ["location /a { location /a/b { iothub_target /a/bc; $hook }", '/a/bc'],
    ["location /a { location ~ c\$ { iothub_target /abc; $hook }", '/abc'],
    ["location \@a { iothub_target \@a; $hook", '@a'],
    ["location /a { iothub_target /b; $hook location /b { iothub_target \@c; "
     . "$hook location \@c { iothub_target /a; $hook", '/b'];

says('iothub_target /x;', "iothub_target \"/x\" $back", 'location');

for ('location /a { iothub_target /b; HOOK location /b { return 200; }',
     'location /a { iothub_target /a; HOOK location = /a { return 200; }',
     'location /a { iothub_target /ab; HOOK location ~ b$ { return 200; }',
     'location /a { iothub_target /a/b; HOOK location /a/ { return 200; }',
     'location /a { iothub_target /ab; location /ab { return 200; } HOOK',
     'location /a { iothub_target /b; HOOK location /b { HOOK',
     'location ~ ^/a { iothub_target /ab; location ~ b$ { return 200; } HOOK',
     'location /a { set $b 1; iothub_target /a; HOOK',
     'set $b 1; location /a { iothub_target /a; HOOK')
{
    my $line = s/HOOK/$hook/gr;
    my ($exit, $output) = $t->nginx_t(conf(server => $line));

    is($exit, 0, "does not lead back: $line") or diag($output);
}


# templates that only some values of their variables make JSON

for my $line (q('{"$arg_a":1,"$arg_b":2}'), q('{$arg_a:1,$arg_b:2}'),
              q('{"t":-$arg_a}'), q('"\\\\u00$arg_a"'), q('[$arg_a$arg_b]'),
              '$arg_a', '5', q(escape=none '{"a":$arg_a'),
              'hello; iothub_content_type text/plain',
              'hello; iothub_content_type $arg_a')
{
    my ($exit, $output) = $t->nginx_t(conf(location =>
                                           "iothub_message $line;"));

    is($exit, 0, "may be JSON, or need not: $line") or diag($output);
}


# a variable that there is none of, in nginx's own words, without a line

for my $line ('filter $nothing', 'message $nothing', 'property a $nothing') {
    my ($exit, $output) = $t->nginx_t(conf(location => "iothub_$line;"));

    is($exit, 1, "refused: iothub_$line");
    like($output, qr/\[emerg\] (?:\d+#\d+: )?unknown "nothing" variable$/m,
         '... by its name');
}

$t->done;
