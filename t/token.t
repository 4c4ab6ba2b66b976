#!/usr/bin/perl

# Tokens as the hub gets them: one for all exchanges of a worker, what it is
# for and how long it lasts, and which of the two keys signs it.  When it is
# signed anew is tested by hub_token.t, which sets the clock.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use MIME::Base64 qw(encode_base64);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;

my $t = IoTHubTest->new(allow => [qr/iothub hub "\w+" refuses/]);

my $policy = 'web.hooks-1_of@gate';
my $hub = $t->hub(tls => 0, policy => $policy, policies =>
    [join(':', 'x' x 256, encode_base64('k' x 64, ''))]);
my ($primary, $secondary) = $hub->keys;

my $device_hub = $t->hub(name => 'scoped', tls => 0, policy => 'x' x 256,
                         keys => [$hub->keys]);


sub block {
    my ($hub, $more) = @_;

    return $hub->block($more) . "\n";
}


# Refused credentials hold back a hub: each lack is tried on one of its own.

my @lacks = qw(keys connect write read);

sub lacking {
    return map { (my $block = block($hub, 'zone 1m;')) =~ s/contoso/$_/;
                 $block } @lacks;
}


sub conf {
    return join '', @_, lacking(), <<'CONF';

    iothub_secret off;
    large_client_header_buffers 4 64k;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass contoso; }
        location ~ ^/lack/(?<name>\w+)$ { iothub_pass $name; }
        location /scoped { iothub_pass scoped; }

        location /wide {
            iothub_property big $http_x_big;
            iothub_pass scoped;
        }
    }

CONF
}


sub hook {
    my ($device, $uri, %headers) = @_;

    $device =~ s/([^A-Za-z0-9])/sprintf '%%%02X', ord $1/ge;

    return $t->post($uri // '/', "event=temp&coreid=$device&data=1",
                    %headers);
}


# Tokens signed in one second are equal, shared or not.

sub next_second {
    my $now = int time;

    sleep 0.02 while int time == $now;
}


# tokens(HUB): the exchanges as "op status key", and their tokens

sub exchanges {
    return join ', ', map { join ' ', $_->{op}, $_->{status},
                            $_->{token}{key} // 'none' } $_[0]->journal;
}


sub different {
    my ($member, @entries) = @_;

    my %seen = map { ($_->{token}{$member} // '') => 1 } @entries;

    return sort keys %seen;
}


# ---- one token for all

$hub->add(map { "e$_" } 1 .. 5);

$t->nginx(conf(block($hub), block($device_hub, 'token_scope device;'
                                  . 'token_lifetime 10m;')), workers => 1);

my $start = int time;

for (1 .. 3) {
    is(hook("e$_")->{status}, 204, "delivered: e$_");
    next_second();
}

is(hook('new')->{status}, 204, 'delivered: a new device');

my @journal = $hub->journal;
my ($expiry, @more) = different(se => @journal);

is(scalar @journal, 6, 'six exchanges, over three seconds');
is_deeply(\@more, [], 'with one token');
cmp_ok($expiry, '>=', $start + 3600, 'that lasts an hour');
cmp_ok($expiry, '<=', $start + 3602, 'from the first exchange on');
is_deeply([different(sr => @journal)], [$hub->hostname], 'for the whole hub');
is_deeply([different(skn => @journal)], [$policy],
          'of a policy with all the characters that a name may have');
is_deeply([different(key => @journal)], ['primary'], 'by the primary key');


# ---- token_scope device, token_lifetime

my $odd = q{a-b.c:d%e_f#g*h?i!j(k)l,m=n@o;p$q'r};
my $long = 'z' x 128;

$start = int time;

for my $device ($odd, $long) {
    (my $escaped = "scoped.azure-devices.net/devices/$device")
        =~ s/([^A-Za-z0-9_.~-])/sprintf '%%%02X', ord $1/ge;

    $device_hub->forget;

    is(hook($device, '/scoped')->{status}, 204,
       'delivered: ' . substr $device, 0, 40);

    @journal = $device_hub->journal;

    is_deeply([map { "$_->{op} $_->{token}{sr}" } @journal],
              ["send $escaped", 'create scoped.azure-devices.net',
               "send $escaped"],
              'messages with a token of the device, the registry with the '
              . 'hub\'s');

    my ($first, $last) = (different(se => @journal))[0, -1];

    cmp_ok($first, '>=', $start + 600, 'token_lifetime 10m');
    cmp_ok($last, '<=', time + 600, 'and not more');
}

is(length +(different(skn => @journal))[0], 256, 'a policy name of 256');


# ---- large headers, both ways

$device_hub->forget;
is(hook($long, '/wide', 'X-Big' => 'b' x 8000)->{status}, 204,
   'a property of 8000 characters');
is(length +($device_hub->journal)[0]{headers}{'iothub-app-big'}, 8000,
   'arrives whole');

$hub->faults([{ op => 'send', status => 204, times => 1,
                headers => { map { ("X-Large-$_" => 'h' x 300) } 1 .. 8 } }]);
is(hook('e1')->{status}, 204, 'an answer with 2.5 KB of headers');

$hub->faults([{ op => 'send', status => 204,
                headers => { map { ("X-Large-$_" => 'h' x 900) } 1 .. 40 } }]);
$t->allow(qr/upstream sent too big header/);

$t->reload(conf(block($hub, 'proxy_buffer_size 64k; proxy_buffers 8 64k;'),
                block($device_hub)), wait_old => 1);
is(hook('e1')->{status}, 204,
   'proxy_buffer_size takes an answer with 36 KB of headers');
$hub->faults([]);

$t->stop;


# ---- the other key

my $other = encode_base64('o' x 32, '');


sub hub_has {
    my (%keys) = @_;

    $hub->policies({ $policy => \%keys });
    $hub->forget;
}

hub_has(primary => $other, secondary => $secondary);

$t->nginx(conf(block($hub), block($device_hub)), workers => 2);

is(hook('e1')->{status}, 204, 'the primary is refused: delivered');
is(exchanges($hub), 'send 401 none, send 204 secondary', 'by the secondary');

# by all workers: each of many requests may come to any of them

$hub->forget;

my @answers = $t->parallel([map { [POST => '/', headers =>
    { 'Content-Type' => 'application/x-www-form-urlencoded' },
    body => 'event=temp&coreid=e' . (1 + $_ % 5) . '&data=1'] } 1 .. 40], 8);

is(scalar(grep { $_->{status} == 204 } @answers), 40, 'all delivered');
is_deeply([different(key => $hub->journal)], ['secondary'],
          'and none of them tried the primary again');

$t->reload(undef, wait_old => 1);
$hub->forget;

is(hook('e1')->{status}, 204, 'after a reload: delivered');
is(exchanges($hub), 'send 204 secondary', 'the key is remembered');

# the keys were swapped in the file: the fingerprint tells them apart

$t->write_file('contoso.key', "$secondary\n$other\n");
$t->reload(undef, wait_old => 1);
hub_has(primary => $other, secondary => $secondary);

is(hook('e1')->{status}, 204, 'with the keys in another order: delivered');
is(exchanges($hub), 'send 204 secondary', 'the key is remembered');

# a new primary in the file

my $newest = encode_base64('n' x 32, '');

hub_has(primary => $newest, secondary => $secondary);
$t->write_file('contoso.key', "$newest\n$other\n");
$t->reload(undef, wait_old => 1);

is(hook('e1')->{status}, 204, 'with new keys: delivered');
is(exchanges($hub), 'send 204 primary', 'a new primary is tried first');

# the registry refuses a key, too

hub_has(primary => $secondary, secondary => $other);
$hub->faults([{ op => 'send', error => 'DeviceNotFound', times => 1 }]);

is(hook('new2')->{status}, 204, 'a creation is refused: delivered');
is(exchanges($hub), 'send 404 none, create 401 none, create 200 secondary, '
                    . 'send 204 secondary',
   'created by the other key, which the message keeps to');
$hub->faults([]);


# ---- no key, or not enough rights

sub refused {
    my ($name, $uri, $device, $exchanges) = @_;

    my $answer = hook($device, $uri);

    is($answer->{status}, 503, "$name: 503");
    is(eval { decode_json($answer->{body})->{code} }, 'credentials',
       "$name: credentials");
    ok($answer->{headers}{'retry-after'}, "$name: Retry-After");
    ref $exchanges ? like(exchanges($hub), $exchanges, "$name: exchanges")
                   : is(exchanges($hub), $exchanges, "$name: exchanges");
}

hub_has(primary => $primary);
refused('both keys refused', '/lack/keys', 'e2',
        'send 401 none, send 401 none, get 401 none, get 401 none');
ok(scalar $t->log_lines(join '.*', '\\[error\\]', 'hub: "keys"',
                        'device: "e2"', 'result: credentials',
                        'hub status: 401', 'error: "IotHubUnauthorizedAccess"',
                        'request id: "[0-9a-f-]{36}"'),
   'the log names hub, device, status, error and request id');

sub rights { hub_has(primary => $newest, secondary => $other,
                     rights => [@_]) }

rights(qw(RegistryRead RegistryWrite));
refused('no DeviceConnect', '/lack/connect', 'e3',
        'send 401 none, send 401 none, get 200 primary');

rights(qw(RegistryRead DeviceConnect));
refused('no RegistryWrite', '/lack/write', 'new3',
        'send 404 primary, create 401 none, create 401 none');
is(hook('e5', '/lack/write')->{status}, 204, 'and who exists is delivered');

$hub->add('e6');
$hub->disable('e6');

rights(qw(RegistryWrite DeviceConnect));
refused('no RegistryRead', '/lack/read', 'e6',
        qr/^send\ 404\ primary,\ create\ 409\ primary,
           \ get\ 401\ none,\ get\ 401\ none(,\ send\ 404\ \w+)+$/x);

ok(scalar $t->log_lines(qr/\[crit\].*hub "$_->[0]" .*policy (?x:
                        )"\Q$policy\E" lacks the right $_->[1]/),
   "it is said that $_->[1] lacks")
    for ['connect', 'device connect'], ['write', 'registry write'],
        ['read', 'registry read'];

# the key that was tried last is stale, and it is the device that is refused

hub_has(primary => $other);
$hub->add('e7');
$hub->disable('e7');
$hub->settings({ disabled_status => 401 });
$hub->forget;

is(hook('e7')->{status}, 422, 'disabled, and one key is stale: blocked');
like(exchanges($hub), qr/^send 401 \w+, send 401 none, get 200 primary$/,
     'asked with the key that is good');

unlike($t->error_log(no_debug => 1),
       qr/SharedAccessSignature|sig=|\Q$newest\E|\Q$other\E/,
       'no log line has a key or a token');

$t->done;
