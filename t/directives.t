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
        /\[emerg\] (?:\d+#\d+: )?(.*) in (\S+):(\d+)$/m
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
    . '"_" in the name';
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
    ['iothub_field $x a; iothub_field $x b;', 'the duplicate "x" variable'],
    ['iothub_field $iothub_event a;', 'the duplicate "iothub_event" variable'],
    ['iothub_field $host a;', 'the duplicate "host" variable'];

says('iothub_field $x a;', '"iothub_field" directive is not allowed here', $_)
    for 'server', 'location';

my $array = 'an array is in JSON only, write json:/pointer, or "json:" for '
    . 'all of the body';
my $sources = 'write "particle", "the-things-stack", "chirpstack", "sigfox", '
    . '"notehub", "cloudevents", "eventgrid", "device-bridge", or "custom"';
my $target = 'write "@name" or "/uri" of the location that has the '
    . 'proxy_pass, or "off"';
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

    ['iothub_source pigeon;', "unknown source \"pigeon\", $sources"],
    ['iothub_source Custom;', "unknown source \"Custom\", $sources"],
    ['iothub_source $arg_source;', "unknown source \"\$arg_source\", $sources"],

    ['iothub_signature md5 file=keys;', 'unknown scheme "md5", write '
     . 'github, stripe, standard-webhooks or hmac-sha256'],
    ['iothub_signature github header=X;',
     '"iothub_signature" directive needs "file=FILE"'],
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

    ['iothub_filter "$";', 'invalid variable name'],

    ['iothub_message escape=xml $iothub_data;', 'invalid parameter '
     . '"escape=xml", write "escape=json" or "escape=none"'],
    ['iothub_message $iothub_data escape=json;', 'invalid parameter '
     . '"$iothub_data", write "escape=json" or "escape=none"'],
    ['iothub_message \'{"a":${iothub_data}\' escape=json b;',
     'invalid number of arguments in "iothub_message" directive'],
    ['iothub_message "$";', 'invalid variable name'],

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
     '"iothub_secret" directive has an invalid header name'],
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

# a variable that there is none of, in nginx's own words, without a line

for my $line ('filter $nothing', 'message $nothing', 'property a $nothing') {
    my ($exit, $output) = $t->nginx_t(conf(location => "iothub_$line;"));

    is($exit, 1, "refused: iothub_$line");
    like($output, qr/\[emerg\] (?:\d+#\d+: )?unknown "nothing" variable$/m,
         '... by its name');
}

$t->done;
