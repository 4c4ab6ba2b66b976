#!/usr/bin/perl

# What nginx takes and is probably wrong: nginx -t warns with one line, that
# says what to write and where.  What is right is taken without a word.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $dir = $t->dir;

$t->write_file('hub.key', 'c2VjcmV0IGtleSBvZiB0aGUgcG9saWN5IGdhdGV3YXk=');
$t->write_file('keys', "open sesame\n");

my $contoso = 'hostname localhost; tls off; policy gateway; key_file hub.key;';


# The parts are lines of the hub, of http{}, of the server and of the location;
# pass is in the location, too, and good if it is not given.

sub conf {
    my (%o) = @_;

    return join "\n", '', 'iothub contoso {', $o{block} // $contoso,
        $o{hub} // '', '}', $o{http} // '', 'server {',
        'listen 127.0.0.1:9;', $o{server} // '', 'location = /hook {',
        $o{pass} // "iothub_secret off;\niothub_pass contoso;",
        $o{location} // '', '}', 'location @old { return 200; }', '}', '';
}


# warns(NAME, MESSAGE, LINE, %parts): MESSAGE is the only warning, and points
# to LINE

sub warns {
    my ($name, $message, $line, %o) = @_;

    my ($exit, $output) = $t->nginx_t(conf(%o));
    my @said;

    for (grep { /\[(?!notice|info)\w+\]/ } split /\n/, $output) {
        my ($said, $file, $n) = /\] (?:\d+#\d+: )?(.*?),? in (\S+):(\d+)$/
            or push(@said, $_), next;

        $said =~ s/ in \Q$dir\E\S+/ in FILE/g;
        push @said, [$said, (split /\n/, $t->read_file($file))[$n - 1]];
    }

    is_deeply([$exit, @said], [0, [$message, $line]], "warned: $name")
        or diag($output);
}


sub silent {
    my ($name, %o) = @_;

    my ($exit, $output) = $t->nginx_t(conf(%o));
    my @said = grep { /\[(?!notice|info)\w+\]/ } split /\n/, $output;

    is_deeply([$exit, @said], [0], "silent: $name") or diag($output);
}


silent('what is good');


# ---- the way to the hub

my $elsewhere = 'hostname contoso.example.com; address 192.0.2.1:80;'
    . ' policy a; key_file hub.key;';

warns('tls off to another machine', '"tls off" of hub "contoso", which is not '
      . 'on this machine: tokens and messages can be read on the way', '}',
      block => "$elsewhere tls off;");
silent("tls off to $_", block => "hostname contoso.example.com; address $_;"
                                 . ' tls off; policy a; key_file hub.key;')
    for '127.0.0.1:80', '127.1.2.3:80', '[::1]:80', 'localhost:80';

warns('proxy_ssl_verify off', '"proxy_ssl_verify off" in iothub{}: whoever '
      . 'answers in the hub\'s place gets its tokens and messages',
      'proxy_ssl_verify off;', block => $elsewhere,
      hub => 'proxy_ssl_verify off;');
silent('proxy_ssl_verify on', block => $elsewhere,
       hub => 'proxy_ssl_verify on;');

sub hangs {
    my ($timeout, $deadline) = @_;

    return "proxy_read_timeout of hub \"contoso\" is $timeout s, and its "
        . "webhooks are answered after $deadline s at the latest: a message "
        . 'that hangs is not sent again; write less, such as 5s';
}

warns('proxy_read_timeout as long as the deadline', hangs(15, 15),
      'iothub contoso {', hub => 'proxy_read_timeout 15s;');
warns('proxy_read_timeout above a deadline', hangs(10, 8), 'iothub contoso {',
      hub => 'proxy_read_timeout 10s;', location => 'iothub_deadline 8s;');
warns('proxy_read_timeout above all deadlines', hangs(60, 15),
      'iothub contoso {', hub => 'proxy_read_timeout 60s;',
      location => 'iothub_source chirpstack;',
      server => 'location /two { iothub_pass $arg_a; iothub_secret off; }');
silent('proxy_read_timeout below the deadline',
       hub => 'proxy_read_timeout 14s;');
silent('proxy_read_timeout above one deadline of two',
       hub => 'proxy_read_timeout 8s;',
       location => 'iothub_source chirpstack;',
       server => 'location /two { iothub_pass contoso; iothub_secret off; }');
silent('the default above a deadline', location => 'iothub_deadline 2s;');
silent('proxy_read_timeout of a hub without webhooks', pass => 'return 200;',
       hub => 'proxy_read_timeout 60s;');


# ---- creation

my $open = 'iothub_pass lets anybody who reaches it create devices: add '
    . 'iothub_secret or iothub_signature, or "iothub_secret off" if senders '
    . 'are checked otherwise';
my $pass = 'iothub_pass contoso;';

warns('an open door', $open, $pass, pass => $pass);
warns('an open door by a variable', $open, 'iothub_pass $arg_hub;',
      pass => 'iothub_pass $arg_hub;');
warns('a door that a variable may open', $open, $pass, pass => $pass,
      location => 'iothub_create $arg_a;');
warns('one open door of two', $open, 'location /two { iothub_pass contoso; }',
      server => 'location /two { iothub_pass contoso; }');
silent('a door with a secret of the server', pass => $pass,
       server => 'iothub_secret header=X-Secret file=keys;');
silent('a door with a signature', pass => $pass,
       location => 'iothub_signature github file=keys;');
silent('iothub_secret off in http', pass => $pass,
       http => 'iothub_secret off;');
silent("an open door with iothub_create $_", pass => $pass,
       location => "iothub_create $_;") for '0', '""';
silent("an open door by $_, with register off", hub => 'register off;',
       pass => "iothub_pass $_;") for 'contoso', '$arg_hub';

my $useless = 'iothub_create is without effect, as the hub has "register '
    . 'off;": write "register missing;", or no iothub_create';

warns('iothub_create with register off', $useless, $pass,
      hub => 'register off;', location => 'iothub_create $arg_a;');
warns('iothub_create for two doors, with register off', $useless,
      'location /two { iothub_secret off; iothub_pass contoso; }',
      hub => 'register off;', server => "iothub_create 1;\n"
      . 'location /two { iothub_secret off; iothub_pass contoso; }');
silent('iothub_create 0 with register off', hub => 'register off;',
       location => 'iothub_create 0;');
silent('iothub_create for a hub with register off and one without',
       hub => 'register off;',
       http => "iothub_create \$arg_a;\niothub fabrikam { $contoso }\n"
       . 'server { listen 127.0.0.1:10; location / { iothub_secret off; '
       . 'iothub_pass fabrikam; } }');

for ('rate=80r/m', 'burst=3') {
    warns("register off $_", "\"$_\" is without effect: nothing is created "
          . 'with "register off;"', "register off $_;",
          hub => "register off $_;");
}

warns('a zone that cannot be saved', 'the zone of hub "contoso" cannot be '
      . 'saved, make the folder "/nowhere/at/all/" (2: No such file or '
      . 'directory)', 'zone 1m state=/nowhere/at/all/contoso;',
      hub => 'zone 1m state=/nowhere/at/all/contoso;');
silent('a zone that can be saved', hub => "zone 1m state=$dir/contoso;");


# ---- what answers in its place

warns("iothub_pass and return $_", 'iothub_pass without effect: "return" in '
      . 'the same location answers each webhook; remove it, or write '
      . '"iothub_accepted" for the answer', $pass, location => "return $_;")
    for '204', '200 thanks';
silent("iothub_pass and $_->[0]", location => $_->[1])
    for ['return in an if', 'if ($arg_a) { return 204; }'],
        ['set', 'set $a b;'];


# ---- what the sender does not wait for, or what nginx does not let in

for (['particle', 20, 15], ['the-things-stack', 5, 4], ['chirpstack', 5, 4],
     ['sigfox', 10, 8], ['eventgrid', 30, 25])
{
    my ($source, $patience, $less) = @$_;
    my $more = "iothub_source $source;";

    warns("a deadline above the patience of $source",
          "iothub_deadline is $patience s, and \"$source\" gives up after "
          . "$patience s: it takes what is delivered later for failed; write "
          . 'less', $pass,
          location => "$more iothub_deadline ${patience}s;");
    silent("the deadline of $source",
           location => "$more iothub_deadline ${less}s;");
}

silent('a long deadline of a source that may wait for it',
       location => 'iothub_source custom; iothub_device_id $arg_id; '
       . 'iothub_deadline 5m;');

warns('a body that is too large for nginx', 'client_max_body_size is 16384, '
      . 'and "particle" sends up to 102400 bytes: nginx answers 413 to the '
      . 'rest; write more', $pass, location => 'client_max_body_size 16k;');
silent("client_max_body_size $_", location => "client_max_body_size $_;")
    for '0', '1m', '100k';
silent('a body of another source',
       location => 'iothub_source sigfox; client_max_body_size 16k;');

sub dropped {
    my ($header, $write) = @_;

    return "nginx drops the header \"$header\" that iothub_secret or "
        . "iothub_signature wants: write \"$write\" into the server";
}

my $underscores = 'underscores_in_headers on;';
my $secret = 'iothub_secret header=X_Key file=keys;';

warns('a secret in a header with an underscore',
      dropped('x_key', $underscores), $pass, pass => "$secret\n$pass");
warns('the same of two locations', dropped('x_key', $underscores),
      'location /two { iothub_pass contoso; }', pass => $pass,
      server => "$secret\nlocation /two { iothub_pass contoso; }");
warns('a signature in such a header', dropped('x_hub', $underscores), $pass,
      location => 'iothub_signature github file=keys header=X_Hub;');
warns('a header with a character that nginx does not know',
      dropped('x.key', 'ignore_invalid_headers off;'), $pass,
      pass => "iothub_secret header=X.Key file=keys;\n$pass");
silent($_->[0], server => $_->[0], pass => "$_->[1]\n$pass")
    for [$underscores, $secret], ['ignore_invalid_headers off;', $secret],
        ['', 'iothub_secret header=X-Key2 file=keys;'];

warns("iothub_rejected $_", "\"iothub_rejected $_\" asks the sender to repeat "
      . 'what will be rejected again: write 422 or 400',
      "iothub_rejected $_;", location => "iothub_rejected $_;")
    for 408, 425, 429;
silent("iothub_rejected $_", location => "iothub_rejected $_;")
    for 200, 400, 422;


# ---- what each event is rejected without

my $id = 'iothub_device_id $arg_id;';

warns('no device id', 'each event is rejected, as "custom" does not say where '
      . 'its device id lies: write iothub_device_id', $pass,
      location => 'iothub_source custom;');
silent('a device id', server => $id, location => 'iothub_source custom;');

for ('custom', 'device-bridge') {
    warns("iothub_match with $_", "each event is rejected, as \"$_\" does not "
          . 'say where its name lies, which iothub_match wants: write '
          . 'iothub_event, or no iothub_match', $pass,
          location => "$id iothub_source $_; iothub_match a;");
    silent("iothub_match with $_ and a name", location =>
           "$id iothub_source $_; iothub_match a; iothub_event \$arg_e;");
}

silent("iothub_source $_", location => "iothub_source $_; iothub_match a;")
    for qw(particle the-things-stack chirpstack sigfox notehub cloudevents
           eventgrid);


# ---- text where a variable was meant

for ('message_id', 'published_at') {
    warns("iothub_$_ without a variable", "\"iothub_$_ id\" is the same for "
          . 'each event: write a variable, such as "$id"', "iothub_$_ id;",
          location => "iothub_$_ id;");
    silent("iothub_$_ $_->[0]", location => "iothub_$_->[1];")
        for ['of a variable', "$_ x-\$arg_id"], ['that is empty', "$_ \"\""];
}

warns('iothub_filter without a variable', '"alarm" in iothub_filter lets '
      . 'every event pass: write a variable, such as "$alarm"',
      'iothub_filter $arg_a alarm;',
      location => 'iothub_filter $arg_a alarm;');
silent("iothub_filter $_", location => "iothub_filter $_;")
    for '$arg_a', '0', '1', '""', 'x$arg_a';

warns("iothub_match $_", "\"$_\" in iothub_match is a prefix as it is written,"
      . ' not a pattern: write the beginning of the names alone, or '
      . '"iothub_filter" and a "map"', "iothub_match a $_;",
      location => "iothub_match a $_;") for 'alarm/*', '*', '~alarm', '^alarm';
silent("iothub_match $_", location => "iothub_match $_;")
    for 'alarm/', 'a*b', 'a~', 'cost$';

warns('a prefix that is added anyway', '"IoTHub-App-Site" in iothub_property '
      . 'becomes "iothub-app-IoTHub-App-Site": write "Site"',
      'iothub_property IoTHub-App-Site x;',
      location => 'iothub_property IoTHub-App-Site x;');

warns('a default that looks like a variable', '"default=$host" is a text, not '
      . 'a variable: for its value, write a "map" that has "$x" in it',
      'iothub_field $x a default=$host;',
      http => 'iothub_field $x a default=$host;');
silent("default=$_", http => "iothub_field \$x a default=$_;")
    for '', '5', '$', '5$';


# ---- words that say something else

warns("iothub_create $_", "\"$_\" in iothub_create is a yes, as is every word "
      . 'but "0": write "0"', "iothub_create $_;",
      location => "iothub_create $_;") for qw(off no false none Off);
silent("iothub_create $_", location => "iothub_create $_;")
    for '0', '1', '$arg_a';


# ---- messages

my $json = 'iothub_message is no JSON, whatever its variables are, and the '
    . 'content type is application/json: write JSON in single quotes, without '
    . 'backslashes, or another "iothub_content_type"';

warns("iothub_message $_", $json, "iothub_message $_;",
      location => "iothub_message $_;")
    for 'hello', '""', q('{"a":$iothub_data'), q('{"a":"$iothub_data}'),
        q('{"a":"say \"$iothub_data\""}'), 'escape=none hello',
        q('{"a":1,"a":$iothub_data}'), '$iothub_event-$iothub_data';
silent('iothub_message of text', location => 'iothub_message hello; '
       . 'iothub_content_type text/plain;');


# ---- targets

warns('a target for which there is no location', 'no location for '
      . 'iothub_target "/old": nginx looks for a file, write "location = /old '
      . '{ ... }" in the server of the iothub_pass that is in FILE',
      'iothub_target /old?a;', location => 'iothub_target /old?a;');
warns('the same of two locations', 'no location for iothub_target "/old": '
      . 'nginx looks for a file, write "location = /old { ... }" in the '
      . 'server of the iothub_pass that is in FILE', 'iothub_target /old;',
      server => "iothub_target /old;\nlocation = /two { iothub_secret off; "
                . 'iothub_pass contoso; }');
silent("a target in $_", location => 'iothub_target /old/one;',
       server => "$_ { return 200; }")
    for 'location /', 'location /old', 'location = /old/one',
        'location ^~ /o', 'location ~ ^/old', 'location ~* ONE$';
silent('a target in a location in another', location => 'iothub_target /a/b;',
       server => 'location /a { location /a/b { return 200; } }');
silent('a target that the server rewrites', location => 'iothub_target /old;',
       server => 'rewrite ^/old$ /new;');
silent('the target is off', server => 'iothub_target /old;',
       location => 'iothub_target off;');

$t->done;
