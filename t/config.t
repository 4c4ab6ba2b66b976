#!/usr/bin/perl

# What nginx -t says: good values pass without a word, a mistake is an emerg
# that names the file and the line and says what to write.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;

my $key = 'c2VjcmV0IGtleSBvZiB0aGUgcG9saWN5IGdhdGV3YXk=';
my $other_key = 'YW5vdGhlciBrZXkgb2YgdGhlIHNhbWUgcG9saWN5ISE=';
my $key_file = $t->write_file('good.key', "# primary\n\n$key\n$other_key\n");
my $secret_file = $t->write_file('good.secret', "open sesame\n");

my $address = 'address 127.0.0.1:9;';
my $base = "hostname contoso.azure-devices.net; $address\n"
    . "policy gateway; key_file $key_file;";
my $secret = "iothub_secret header=X-Secret file=$secret_file;";


# The configuration is put together from the lines of the block, of the
# location and of http{}; what is not given is good.

sub conf {
    my (%o) = @_;

    my $block = $o{block} // ($base . "\n" . ($o{hub} // ''));
    my $location = $o{location} // "iothub_pass contoso;\n$secret";

    return join "\n", $o{http} // '', "iothub contoso {", $block, '}',
        'server {', 'listen 127.0.0.1:9;', $o{server} // '',
        'location / {', $location . ($o{more} // ''), '}', '}', '';
}


sub accepts {
    my ($name, %o) = @_;

    $name =~ s/\n/ /g;

    my ($exit, $output) = $t->nginx_t(conf(%o));
    my @said = grep { /\[(?:emerg|alert|crit|error|warn)\]/ }
        split /\n/, $output;

    is_deeply([$exit, @said], [0], "accepted: $name") or diag($output);
}


sub warns {
    my ($name, $message, %o) = @_;

    my ($exit, $output) = $t->nginx_t(conf(%o));

    subtest "warned: $name" => sub {
        is($exit, 0, 'passes') or diag($output);
        like($output, qr/\[warn\].*$message/, 'warns');
    };
}


# refuses(NAME, MESSAGE, LINE, %parts): the message stands in the emerg, which
# points to a line of a file that has LINE in it

sub refuses {
    my ($name, $message, $line, %o) = @_;

    my ($exit, $output) = $t->nginx_t(conf(%o));

    subtest "refused: $name" => sub {
        isnt($exit, 0, 'fails');
        like($output, qr/\[emerg\].*$message/, 'says why') or return;

        my ($file, $n) = $output =~ /\[emerg\].* in (\S+):(\d+)$/m
            or return fail("no file and line in: $output");

        open my $in, '<', $file or return fail("$file: $!");
        my @lines = <$in>;

        like($lines[$n - 1] // '', $line, "at its line")
            or diag("$file:$n");
    };
}


sub refuses_in_hub {
    my ($line, $message) = @_;

    refuses($line, $message, qr/^\Q$line\E$/, hub => $line);
}


sub refuses_in_location {
    my ($line, $message) = @_;

    refuses($line, $message, qr/^\Q$line\E/, more => "\n$line");
}


accepts('the smallest block');


# ---- own directives of the block

accepts($_, hub => $_) for
    'tls on;', 'tls off;', 'token_lifetime 1m;', 'token_lifetime 366d;',
    'token_scope hub;', 'token_scope device;', 'api_version 2020-09-30;',
    'api_version 2025-08-01-preview;', 'device_hostname dev.example.com;',
    'device_hostname dev.example.com:8443;', 'register missing;',
    'register first rate=2r/s burst=5;', 'register off;',
    'register missing burst=1 rate=off;', 'zone 128k;', 'zone 100m;',
    'zone 1m state=contoso.state;',
    q(identity '{}';), q(identity '{"status":"disabled"}';),
    q(identity '{"statusReason":"made by \u0061 webhook"}';),
    q(identity '{"authentication":{"type":"none"}}';),
    q(identity '{"capabilities":{"iotEdge":true}}';),
    q(identity '{"statusReason":") . "\xc3\xa9" x 128 . q("}';),
    q(identity '{"authentication":{"type":"certificateAuthority"}}';);

accepts("hostname $_", block => "hostname $_; $address policy gateway;"
                                . " key_file $key_file;")
    for 'Contoso.Azure-Devices.NET', 'contoso.azure-devices.net:443',
        'localhost:8443', '127.0.0.1';

accepts("address $_", block => "hostname contoso.azure-devices.net;"
                               . " address $_; policy gateway;"
                               . " key_file $key_file;")
    for '127.0.0.1', 'localhost:8443', '[::1]:8443';

accepts("policy $_", block => "hostname contoso.azure-devices.net; $address"
                              . " policy '$_'; key_file $key_file;")
    for 'a', 'iothubowner', 'A_b-c@d.e', 'x' x 256, 'my policy+1/2&3=4';

refuses_in_hub($_->[0], $_->[1]) for
    ['device_hostname dev/x;', 'needs a host name like'],
    ['tls maybe;', 'must be "on" or "off"'],
    ['token_lifetime 59s;', 'must be between 1m and 366d'],
    ['token_lifetime 367d;', 'must be between 1m and 366d'],
    ['token_lifetime soon;', 'invalid time, write for example "1h"'],
    ['token_scope world;', 'must be "hub" or "device"'],
    ['api_version 2021/04;', 'needs a version like 2021-04-12'],
    ['api_version "";', 'needs a version like 2021-04-12'],
    ['api_version latest;', 'needs a version like 2021-04-12'],
    ['api_version 2021-4-12;', 'needs a version like 2021-04-12'],
    ['api_version 2021-04-12_preview;', 'needs a version like 2021-04-12'],
    ['register;', 'invalid number of arguments in "register" directive, write '
     . '"register missing\|first\|off \[rate=80r/m\] \[burst=20\];"'],
    ['tls;', 'invalid number of arguments in "tls" directive, write "tls '
     . 'on\|off;"'],
    ['zone 8m state=a b;', 'invalid number of arguments in "zone" directive, '
     . 'write "zone SIZE \[state=FILE\];"'],
    ['register always;', 'must be "missing", "first" or "off"'],
    ['register missing rate=fast;', 'invalid rate, write for example'],
    ['register missing rate=0r/s;', 'invalid rate, write for example'],
    ['register missing burst=0;', 'invalid burst, write for example'],
    ['register missing pace=1;', 'invalid parameter "pace=1", write for '
     . 'example "rate=80r/m" or "burst=20"'],
    ['register missing first;', 'invalid parameter "first", write for example'],
    ['register missing rate=1r/m rate=2r/m;', 'has one parameter twice: write '
     . '"rate=" and "burst=" once each'],
    ['register missing burst=1 burst=2;', 'has one parameter twice'],
    ['zone 4k;', 'zone of hub "contoso" is too small, it needs at least \d+k'],
    ['zone huge;', 'invalid size, write for example "8m"'],
    ['zone 1m state=;', 'invalid parameter "state=", write "state=FILE"'],
    ['zone 1m file=x;', 'invalid parameter "file=x"'];

refuses_in_hub('zone 1m state=/dev/null;', 'state file "/dev/null" of hub '
               . '"contoso" is not a regular file, write "state=FILE"');

$t->allow(qr/pread\(\) "\S+" failed \(21: /);
warns('a state file that is a folder', 'state file "\S+" of hub "contoso" is '
      . 'not a regular file, write "state=FILE"',
      hub => 'zone 1m state=' . $t->dir . ';');

refuses('two hubs with one state file', 'state file "\S+/one.state" is that '
        . 'of hub "fabrikam" already, write another', qr/^zone 1m/,
        http => "\niothub fabrikam {\n$base\nzone 8m state=one.state;\n}",
        hub => 'zone 1m state=' . $t->dir . '/one.state;');

refuses_in_hub("identity '$_->[0]';", $_->[1]) for
    ['{"status":', 'needs a JSON object like'],
    ['[]', 'needs a JSON object like'],
    ['"enabled"', 'needs a JSON object like'],
    ['{"status":"a","status":"b"}', 'needs a JSON object like'],
    ['{"deviceId":"x"}', '"deviceId" is always that of the event'],
    ['{"tags":{}}', 'takes only "status"'],
    ['{"authentication":{"symmetricKey":{"primaryKey":"AAAA"}}}',
     'keys do not belong into nginx.conf'],
    ['{"authentication":"sas"}', 'takes only "type" in "authentication"'],
    ['{"authentication":{"type":"password"}}',
     'needs "sas", "selfSigned", "certificateAuthority" or "none" as the'],
    ['{"status":"off"}', 'needs "enabled" or "disabled" as the "status"'],
    ['{"status":1}', 'needs "enabled" or "disabled" as the "status"'],
    ['{"statusReason":1}', 'needs a text of up to 128 characters as the'],
    ['{"statusReason":"' . 'x' x 129 . '"}', 'needs a text of up to 128'],
    ['{"capabilities":true}', 'needs "capabilities" like \{"iotEdge":true\}'],
    ['{"capabilities":{"iotEdge":"yes"}}', 'needs "capabilities" like'];

for my $line ('tls on', 'token_lifetime 1h', 'token_scope hub',
              'api_version 2021-04-12', 'register off', q(identity '{}'),
              'zone 1m', 'device_hostname d.example.com')
{
    my ($name) = $line =~ /(\S+)/;

    refuses("$name twice", qr/"$name" directive is duplicate/,
            qr/^\Q$line\E; # again$/, hub => "$line;\n$line; # again");
}

refuses("hostname $_->[0]", $_->[1], qr/^hostname /,
        block => "hostname $_->[0];\n$address policy a; key_file $key_file;")
    for ['https://contoso.azure-devices.net', 'without a scheme'],
        ['contoso.azure-devices.net/x', 'without a scheme or a path'],
        ['contoso.azure-devices.net:https', 'invalid port'],
        ['contoso.azure-devices.net:0', 'invalid port'],
        ['contoso.azure-devices.net:65536', 'invalid port'],
        ['contoso.azure-devices.net:', 'invalid port'],
        [':443', 'needs a host name like'], ['""', 'needs a host name like'],
        ['contoso..azure-devices.net', 'needs a host name like'],
        ['.azure-devices.net', 'needs a host name like'],
        ['contoso.azure-devices.net.', 'without a dot at its end'],
        ['contoso.azure-devices.net.:443', 'without a dot at its end'],
        ['$host', 'needs a host name like'],
        ['"contoso azure"', 'needs a host name like'];

# a line without ";" takes the next for more of its own

refuses('hostname without ;', 'invalid number of arguments in "hostname" '
        . 'directive, write "hostname HOST\[:PORT\];"', qr/^policy a;/,
        block => "hostname contoso.example.com\npolicy a;\n");

refuses("address $_->[0]", $_->[1], $_->[2],
        block => "hostname contoso.example.com;\naddress $_->[0];\n"
                 . "policy a; key_file $key_file;")
    for ['https://127.0.0.1:1', 'needs HOST:PORT', qr/^address /],
        ['$remote_addr', 'needs HOST:PORT', qr/^address /],
        ['8443', 'needs HOST:PORT, a port alone is no address',
         qr/^address /],
        ['[nowhere]:443', 'invalid IPv6 address in address ', qr/^address /],
        (map { [$_, "invalid port in address \"\Q$_\E\": write HOST:PORT, "
                    . 'such as "192.0.2.1:443" or "\[2001:db8::1\]:443"',
                qr/^address /] }
             '127.0.0.1:99999', '127.0.0.1:', '::1', '::1:443'),
        ['nowhere.invalid:443',
         'host not found in "nowhere.invalid:443" of hub "contoso"', qr/^\}/];

refuses("policy $_", qr/"policy" directive (?:needs|has) /, qr/^policy /,
        block => "hostname a.example.com; $address\npolicy $_;\n"
                 . "key_file $key_file;")
    for '""', '"\t"', "\xc3\xbc", 'x' x 257;


# ---- what a hub needs

refuses('a block without hostname', 'hub "contoso" has no "hostname"',
        qr/^\}/, block => "policy a; key_file $key_file;");

refuses('a block without policy', 'hub "contoso" has no "policy"', qr/^\}/,
        block => "hostname a.example.com; $address key_file $key_file;");

refuses('a block without key',
        'hub "contoso" has no key: write "key_file FILE;"', qr/^\}/,
        block => "hostname a.example.com; $address policy a;");

refuses('two hubs of one name',
        'duplicate hub "contoso", it is declared in .*:\d+', qr/^iothub /,
        http => "\niothub contoso {\n$base\n}");

refuses('two hubs whose names differ in case', 'duplicate hub "CONTOSO"',
        qr/^iothub contoso/, http => "\niothub CONTOSO {\n$base\n}");

accepts('hubs whose upstreams could have one name',
        hub => 'device_hostname d.example.com;',
        http => "\niothub registry.contoso {\n$base\n}");

refuses("a hub named $_->[0]", $_->[1], qr/^iothub /,
        http => "\niothub $_->[0] {\n$base\n}")
    for ['""', 'needs a name of 1 to 128 characters'],
        ['x' x 129, 'needs a name of 1 to 128 characters'],
        ['a/b', 'invalid hub name "a/b": use letters'],
        ['$host', 'invalid hub name'];


# ---- keys

sub refuses_key_file {
    my ($name, $text, $message) = @_;

    my $file = $t->write_file('bad.key', $text);

    refuses($name, $message, qr/^key_file /,
            block => "hostname a.example.com; $address policy a;\n"
                     . "key_file $file;");
}

refuses_key_file('an empty key file', '', 'bad.key": no key in it');
refuses_key_file('a key file of comments', "# here\n\n  \n",
                 'bad.key": no key in it');
refuses_key_file('a key that is not base64', "# a\nnot a key\n",
                 'bad.key", line 2: .*base64');
refuses_key_file('a connection string as key', "HostName=a;SharedAccess=b\n",
                 'line 1: this is no key; for a connection string use');
refuses_key_file('three keys', "$key\n$other_key\n$key\n",
                 'bad.key", line 3: more than two keys');
refuses_key_file('a key file of 70 KB', "#\n" x 35000, 'is too large');

refuses("key_file $_->[0]", $_->[1], qr/^key_file /,
        block => "hostname a.example.com; $address policy a;\n"
                 . "key_file $_->[0];")
    for ['nowhere.key', 'nowhere.key" failed \(2:'],
        ['""', '"key_file" directive needs a file'],
        [$t->dir, 'is not a regular file'];

# a relative name is one in the folder of nginx.conf, as of a certificate, or
# else in nginx's prefix

$t->write_file('prefix.key', $key);
$t->write_file('both.key', $key);
$t->write_file('conf/both.key', "not base64\n");

for (['prefix.key', qr/is successful/], ['conf/both.key', qr/line 1: the key/],
     ['both.key', qr{/conf/both\.key", line 1: the key is not base64}],
     ['nowhere.key', qr{open\(\) "\S+/conf/nowhere\.key" failed \(2:}])
{
    my ($name, $says) = @$_;
    my (undef, $said) = $t->nginx_t(conf(block => "hostname a.example.com;"
        . "$address policy a; key_file $name;",
        location => 'iothub_pass contoso; iothub_secret off;'),
        folder => 'conf');

    like($said, $says, "key_file $name, with nginx.conf in a folder");
}

# quoted by no error: neither of the key nor of the text around it

my (undef, $output) = $t->nginx_t(conf(block => "hostname a.example.com;"
    . "policy a; key_file "
    . $t->write_file('bad.key', "$key\nSuperSecret!\n") . ';'));

unlike($output, qr/SuperSecret|\Q$key\E/, 'no error quotes a key');

warns('a key file that others may read',
      'open.key" may be read by others, it should have mode 0600 in \S+:\d+',
      block => "hostname a.example.com; $address policy a; key_file "
               . $t->write_file('open.key', $key, 0644) . ';');

accepts('a key file that the group may read',
        block => "hostname a.example.com; $address policy a; key_file "
                 . $t->write_file('group.key', $key, 0640) . ';');


# ---- connection strings

my $string = 'HostName=contoso.azure-devices.net;SharedAccessKeyName=gateway;'
    . 'SharedAccessKey=';

sub connection {
    my ($text, $more) = @_;

    return block => "$address\nconnection_string_file "
        . $t->write_file('string', $text) . ";\n" . ($more // '');
}

accepts('a connection string', connection("$string$key\n"));
accepts('two connection strings',
        connection("$string$key\n$string$other_key\n"));

refuses("$_->[0] as connection string", $_->[2],
        qr/^connection_string_file /,
        connection($_->[1]))
    for ['nothing', '', 'string": no connection string in it'],
        ['a key', $key, 'string", line 1: '],
        ['a device\'s', "HostName=a;DeviceId=b;SharedAccessKey=$key",
         'line 1: '],
        ['a key that is not base64', "${string}not base64", 'line 1: .*64'],
        ['a host name that is none',
         "HostName=a/b;SharedAccessKeyName=c;SharedAccessKey=$key",
         'its HostName is no host name'],
        ['two hubs\' strings', "$string$key\n"
         . "HostName=b;SharedAccessKeyName=c;SharedAccessKey=$key", 'line 2'];

for my $line ('hostname a.example.com', 'policy a', "key_file $key_file") {
    my ($name) = $line =~ /(\S+)/;
    my $other = 'directive is one too many: write either '
        . '"connection_string_file", or "hostname", "policy" and "key_file"';

    refuses("a connection string and $line", "\"$name\" $other",
            qr/^\Q$line\E/, connection("$string$key", "$line;"));
    refuses("$line and a connection string",
            "\"connection_string_file\" $other", qr/^connection_string_file/,
            block => "$line;\n" . (connection("$string$key"))[1]);
}


# ---- nginx's own directives in the block

my $ca = '/etc/ssl/certs/ca-certificates.crt';

accepts($_, hub => $_) for
    'proxy_bind 127.0.0.1;', 'proxy_connect_timeout 1s;',
    'proxy_send_timeout 1s;', 'proxy_read_timeout 1s;',
    'proxy_socket_keepalive on;', 'proxy_buffers 4 16k;',
    "proxy_buffer_size 16k;\nproxy_buffers 4 16k;",
    'proxy_ssl_protocols TLSv1.3;', 'proxy_ssl_ciphers HIGH;',
    'proxy_ssl_session_reuse off;',
    'proxy_ssl_verify on;', 'proxy_ssl_verify_depth 2;',
    "proxy_ssl_trusted_certificate $ca;", 'keepalive 8;',
    "keepalive_timeout 5s;\nkeepalive_time 1m;\nkeepalive_requests 10;",
    "keepalive_requests 10;\nkeepalive 2;", 'resolver 127.0.0.1;',
    'resolver_timeout 3s;';

refuses_in_hub($_->[0], $_->[1]) for
    ['proxy_connect_timeout often;', 'invalid value'],
    ['proxy_bind 1.2.3.4.5;', 'invalid address "1.2.3.4.5"'],
    ['proxy_buffers 4;', 'invalid number of arguments in "proxy_buffers"'],
    ['proxy_ssl_verify perhaps;', 'invalid value "perhaps"'],
    ['proxy_ssl_nonsense on;', 'unknown directive "proxy_ssl_nonsense"'],
    ['resolver nowhere.invalid;', 'host not found in resolver'],
    ['keepalive no;', 'invalid value "no" in "keepalive"'],
    ['keepalive;', 'invalid number of arguments in "keepalive"'],
    ['keepalive_timeout 1s 2s 3s;', 'invalid number of arguments'],
    ['proxy_ssl_name other.example.com;', '"proxy_ssl_name" is not allowed '
     . 'in iothub\{\}: the hub\'s "hostname" is what is sent'],
    ['proxy_ssl_server_name off;', '"proxy_ssl_server_name" is not allowed'];

refuses_in_hub($_, '"?unknown directive "\w+" in iothub\{\}: it takes its own '
                   . 'directives, and of nginx')
    for 'proxy_set_header X-A b;', 'proxy_pass http://127.0.0.1;',
        'proxy_method PUT;', 'proxy_next_upstream off;', 'proxy_cache off;',
        'proxy_http_version 1.0;', 'proxy_buffering on;', 'root /srv;',
        'return 204;', 'listen 9;', 'server_name x;', 'error_page 502 /x;',
        'keepalive_disable none;', 'keepalive_connections 5;',
        'iothub_pass contoso;', 'hub contoso;', 'Hostname a.example.com;',
        'hostnames a.example.com;', 'access_log off;', 'nonsense;';

refuses("$_ 0", qr/"$_" of hub "contoso" is 0, and nothing is as fast: write /
                . 'for example "5s"', qr/^\}/, hub => "$_ 0;")
    for 'proxy_connect_timeout', 'proxy_send_timeout', 'proxy_read_timeout';

refuses("proxy_buffer_size $_", '"proxy_buffer_size" of hub "contoso" is \d+, '
        . 'and the head of an answer is longer: write for example "4k"',
        qr/^\}/, hub => "proxy_buffer_size $_;") for 0, 1023;
accepts('proxy_buffer_size 1k', hub => 'proxy_buffer_size 1k;');

# what nginx says without a line

refuses($_, 'nginx refuses what hub "contoso" has of proxy_\*, for the reason '
        . 'above', qr/^\}/, hub => $_)
    for 'proxy_ssl_trusted_certificate nowhere.pem;',
        'proxy_ssl_certificate nowhere.pem;', 'proxy_ssl_ciphers NONSENSE;',
        'proxy_ssl_crl nowhere.pem;';

refuses("$_ {} in the block", 'unexpected "\{"', qr/^\Q$_\E \{$/,
        hub => "$_ {\n}") for 'location /', 'if ($host)', 'upstream a';

refuses("$_->[0] twice", "\"$_->[0]\" directive is duplicate|"
                         . 'directive is duplicate', qr/# again$/,
        hub => "$_->[0] $_->[1];\n$_->[0] $_->[1]; # again")
    for ['proxy_read_timeout', '1s'], ['proxy_ssl_verify', 'on'],
        ['keepalive', '8'], ['resolver_timeout', '1s'];

my $part = $t->write_file('part.conf', "token_scope device;\nkeepalive 3;\n");
my $bad_part = $t->write_file('bad.conf', "\n\ntoken_scope no; # bad\n");
my $bad_keep = $t->write_file('keep.conf', "\nkeepalive no; # bad\n\n\n");

accepts('include', hub => "include $part;");
refuses('a mistake in an included file', 'must be "hub" or "device"',
        qr/# bad$/, hub => "include $bad_part;");
refuses('a bad keepalive in an included file', 'invalid value "no"',
        qr/# bad$/, hub => "include $bad_keep;");
refuses("include$_", 'invalid number of arguments in "include" directive',
        qr/^include/, hub => "include$_;") for '', ' a b';
refuses('include of a file that is not there', 'nowhere.conf" failed',
        qr/^include /, hub => "include nowhere.conf;");

# ---- where webhooks come in

accepts($_, more => "\n$_") for
    'iothub_source particle;', 'iothub_device_id $arg_id;',
    'iothub_event $arg_event;', 'iothub_data $arg_data;',
    'iothub_published_at $msec;', 'iothub_message_id $request_id;',
    'iothub_device_pattern "[0-9a-f]{24}";', 'iothub_device_pattern "a|b";',
    'iothub_create $arg_create;', 'iothub_create 0;',
    'iothub_match temp alarm;', 'iothub_filter $arg_a $arg_b;',
    q(iothub_message '{"a":"$iothub_data"}';),
    'iothub_message escape=none $iothub_body;', 'iothub_data_as json;',
    'iothub_data_as string;', 'iothub_content_type text/plain;',
    'iothub_content_encoding utf-8;', 'iothub_property site $host;',
    "iothub_property a 1;\niothub_property b 2;", 'iothub_deadline 500ms;',
    'iothub_accepted 200;', 'iothub_accepted 202;', 'iothub_accepted 204;',
    'iothub_rejected 200;', 'iothub_rejected 299;', 'iothub_rejected 400;',
    'iothub_rejected 499;';

refuses_in_location($_->[0], $_->[1]) for
    ['iothub_source pigeon;', 'unknown source "pigeon", write "particle"'],
    ['iothub_device_pattern "(";', 'in "\("'],
    ['iothub_device_pattern "a)|(b";', 'in "a\)\|\(b"'],
    ['iothub_match "";', 'needs prefixes that are not empty'],
    ['iothub_match;', 'invalid number of arguments'],
    ['iothub_message escape=json;',
     '"iothub_message" directive needs a value after "escape="'],
    ['iothub_message escape=none;',
     '"iothub_message" directive needs a value after "escape="'],
    ['iothub_message escape=xml $iothub_data;',
     'invalid parameter "escape=xml", write "escape=json"'],
    ['iothub_data_as xml;', 'must be "string" or "json"'],
    ['iothub_property "" x;', 'invalid property name "": '],
    ['iothub_property "a b" x;', 'invalid property name "a b": .*letters'],
    ['iothub_property iothub-to x;', 'reserved by IoT Hub'],
    ['iothub_property IoTHub-MessageId x;', 'reserved by IoT Hub'],
    ['iothub_property connectionDeviceId x;', 'reserved by IoT Hub'],
    ['iothub_property lonely;', 'invalid number of arguments'],
    ['iothub_deadline 0;', 'must be longer than nothing, write for example'],
    ['iothub_deadline later;', 'has an invalid time, write for example "15s"'],
    ['iothub_accepted 201;', 'must be 200, 202 or 204'],
    ['iothub_accepted ok;', 'must be 200, 202 or 204'],
    ['iothub_rejected 302;', 'must be a code from 200 to 299 or from 400'],
    ['iothub_rejected 503;', 'must be a code from 200 to 299 or from 400'],
    ['iothub_nonsense x;', 'unknown directive "iothub_nonsense"'];

refuses('one property twice, in another case', 'duplicate property "SITE"',
        qr/^iothub_property SITE/,
        more => "\niothub_property site a;\niothub_property SITE b;");

for my $line ('iothub_source particle', 'iothub_device_id $arg_a',
              'iothub_device_pattern a', 'iothub_create 1', 'iothub_match a',
              'iothub_filter 1', 'iothub_message 1', 'iothub_data_as json',
              'iothub_content_type a/b', 'iothub_deadline 1s',
              'iothub_accepted 200', 'iothub_rejected 400')
{
    my ($name) = $line =~ /(\S+)/;

    refuses("$name twice", 'is duplicate', qr/^\Q$line\E; # again$/,
            more => "\n$line;\n$line; # again");

    accepts("$name in http, server and location", http => "$line;",
            server => "$line;", more => "\n$line;");
}


accepts('iothub_pass with a variable',
        location => "iothub_pass \$arg_hub; $secret");
accepts('iothub_pass in if and limit_except',
        location => "$secret\nif (\$arg_a) {\niothub_pass contoso;\n}\n"
                    . "limit_except GET {\niothub_pass contoso;\n}");
accepts('a hub declared after its use', block => $base,
        http => "server {\nlisten 127.0.0.1:10;\nlocation / {\n"
                . "iothub_pass contoso;\n$secret\n}\n}");

refuses('iothub_pass to an unknown hub', 'unknown hub "fabrikam" in '
        . 'iothub_pass, declare it with "iothub fabrikam \{ ... \}"',
        qr/^iothub_pass fabrikam/,
        location => "$secret\niothub_pass fabrikam;");
refuses('iothub_pass to a hub in another case', 'unknown hub "Contoso"',
        qr/^iothub_pass/, location => "$secret\niothub_pass Contoso;");
refuses("iothub_pass $_", '"iothub_pass" directive needs the name of a hub, as '
        . '"iothub NAME \{ ... \}" declares it, not an address',
        qr/^iothub_pass/, location => "$secret\niothub_pass $_;")
    for 'https://contoso.azure-devices.net', 'contoso/x', '"contoso "',
        'contoso:443';
refuses('iothub_pass to nothing', 'needs the name of a hub',
        qr/^iothub_pass/, location => "$secret\niothub_pass \"\";");
refuses('two iothub_pass', 'is duplicate', qr/# again$/,
        location => "iothub_pass contoso;\niothub_pass contoso; # again");

# of two content handlers nginx takes the last

my $alone = 'iothub_pass without effect: another content handler, such as '
    . 'proxy_pass, follows in the same location; move that into a location '
    . 'of its own, and write "iothub_target" to have it get the webhook, too,'
    . ' in \S+:\d+';

refuses('iothub_pass and proxy_pass', $alone, qr/^iothub_pass/, location =>
        "$secret\niothub_pass contoso;\nproxy_pass http://127.0.0.1:9;");
refuses('iothub_pass and empty_gif', $alone, qr/^iothub_pass/, location =>
        "$secret\niothub_pass contoso;\nempty_gif;");
refuses("$_ and iothub_pass", '"iothub_pass" directive follows another content '
        . 'handler, such as proxy_pass, in the same location: move that into '
        . 'a location of its own, and write "iothub_target" to have it get '
        . 'the webhook, too', qr/^iothub_pass/,
        location => "$secret\n$_;\niothub_pass contoso;")
    for 'proxy_pass http://127.0.0.1:9', 'empty_gif';
refuses("$_ and iothub_status", '"iothub_status" directive follows another '
        . 'content handler, such as proxy_pass, in the same location: give it '
        . 'a location of its own', qr/^iothub_status/,
        location => "$_;\niothub_status;")
    for 'proxy_pass http://127.0.0.1:9', 'empty_gif';
accepts('iothub_pass and return in an if', location =>
        "$secret\nif (\$arg_a) { return 204; }\niothub_pass contoso;");
accepts('iothub_pass in an if, and proxy_pass', location =>
        "$secret\nproxy_pass http://127.0.0.1:9;\nif (\$arg_a) {\n"
        . "iothub_pass contoso;\n}");


refuses("$_->[0] in $_->[1]", '"\w+" directive is not allowed here',
        qr/^\Q$_->[0]\E/, $_->[1] => ($_->[2] // '') . "\n$_->[0]")
    for ['iothub_pass contoso;', 'server'], ['iothub_pass contoso;', 'http'],
        ['iothub other {', 'server'], ['iothub other {', 'more'];


# ---- the secret, and the door without one

accepts('iothub_secret off', location => 'iothub_pass contoso; '
                                         . 'iothub_secret off;');
accepts('a secret of several lines', location => 'iothub_pass contoso;'
    . 'iothub_secret file=' . $t->write_file('two.secret', "# a\none\ntwo\n")
    . ' header=X;');

sub refuses_secret {
    my ($arguments, $message) = @_;

    refuses("iothub_secret $arguments", $message, qr/^iothub_secret /,
            location => "iothub_pass contoso;\niothub_secret $arguments;");
}

refuses_secret('on', 'invalid parameter "on"');
refuses_secret('header=X', 'needs "header=NAME file=FILE", or "off"');
refuses_secret("file=$secret_file", 'needs "header=NAME file=FILE"');
refuses_secret("header= file=$secret_file", 'needs "header=NAME file=FILE"');
refuses_secret('header=X file=', 'needs "header=NAME file=FILE"');
refuses_secret("header=A header=B", 'invalid parameter "header=B"');
refuses_secret("header=X files=$secret_file", 'invalid parameter "files=');
refuses_secret("'header=X Y' file=$secret_file", 'an invalid header name');
refuses_secret("header=X: file=$secret_file", 'an invalid header name');
refuses_secret('header=X file=nowhere', 'nowhere" failed \(2:');
refuses_secret('header=X file=' . $t->write_file('no.secret', "#\n\n"),
               'no.secret": no secret in it, write one a line');
refuses_secret('header=X file=' . $t->write_file('nul.secret', "a\nb\x01\n"),
               'nul.secret", line 2: a control character');

refuses('two iothub_secret', 'is duplicate', qr/^iothub_secret off/,
        more => "\niothub_secret off;");

warns('a secret file that others may read', 'open.secret" may be read by '
      . 'others', location => 'iothub_pass contoso; iothub_secret header=X '
      . 'file=' . $t->write_file('open.secret', 'x', 0604) . ';');

$t->done;
