#!/usr/bin/perl

# Identities that are missing in the hub: what each "register" does about
# them, how the creation looks, and that a registry which is limited, down or
# closed holds back no device that exists.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new(allow => [qr/lacks the right registry write/]);
my $hub = $t->hub(tls => 0);

my $members = '"status":"enabled","statusReason":"by the gateway",'
    . '"capabilities":{"iotEdge":false}';

my %gateway = (
    missing => '',
    first => 'register first rate=off;',
    off => 'register off;',
    limited => 'register missing rate=1r/m burst=2;',
    orderly => 'register missing rate=4r/s burst=1;',
    unlimited => 'register missing rate=off;',
    firstlimited => 'register first rate=6r/m burst=1;',
    members => "identity '{$members}';",

    # a registry that does not create closes a gate: each time of another hub
    map { ("missing$_" => 'zone 1m;',
           "first$_" => 'zone 1m; register first rate=off;') } 'a' .. 'k',
);


sub gateway {
    my ($name) = @_;

    (my $block = $hub->block($gateway{$name})) =~ s/^iothub \S+/iothub $name/;

    return "$block\n";
}

$t->nginx(join('', map { gateway($_) } sort keys %gateway) . <<'CONF');

    iothub_secret off;

    log_format outcome '$iothub_device_id $iothub_result $iothub_identity';
    access_log %%TESTDIR%%/access.log outcome;

    map $iothub_device_id $wanted {
        default  1;
        ~^zero   0;
        ~^empty  "";
    }

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location ~ ^/(?<name>[a-z]+)$ {
            iothub_pass $name;
        }

        location ~ ^/never/(?<name>[a-z]+)$ {
            iothub_create 0;
            iothub_pass $name;
        }

        location ~ ^/wanted/(?<name>[a-z]+)$ {
            iothub_create $wanted;
            iothub_pass $name;
        }

        location ~ ^/soon/(?<name>[a-z]+)$ {
            iothub_deadline 1s;
            iothub_pass $name;
        }
    }

CONF


sub webhook {
    my ($uri, $device) = @_;

    return [POST => "/$uri", body => "event=temp&coreid=$device&data=1",
            headers => { 'Content-Type' =>
                         'application/x-www-form-urlencoded' }];
}


sub word {
    my ($answer) = @_;

    return 'delivered' if $answer->{status} == 204;

    return "$answer->{status} "
        . (eval { decode_json($answer->{body})->{code} } // 'no problem');
}


sub calls {
    return join ', ', map { "$_->{op} $_->{status}" }
        $hub->journal(device => $_[0]);
}


# sends(NAME, URI, DEVICE, WORD, CALLS, IDENTITY): a webhook, what its sender
# is told, which calls it made, and what $iothub_identity said

sub sends {
    my ($name, $uri, $device, $word, $calls, $identity) = @_;

    $hub->forget;

    my ($answer) = $t->parallel([webhook($uri, $device)], 1);

    is(word($answer), $word, "$name: $word");

    ref $calls ? like(calls($device), $calls, "$name: calls")
               : is(calls($device), $calls, "$name: calls");

    return $answer unless defined $identity;

    ok($t->wait_for_log(qr/^$device \S+ $identity$/, file => 'access.log'),
       "$name: $identity");

    return $answer;
}


# ---- register missing

$hub->add('m2', 'm3');

sends('a new device', 'missing', 'm1', 'delivered',
      'send 404, create 200, send 204', 'CREATED');

my ($put) = $hub->journal(op => 'create');

is($put->{body}, '{"deviceId":"m1","authentication":{"type":"sas",'
   . '"symmetricKey":{"primaryKey":"","secondaryKey":""}}}',
   'the identity, with keys made by the hub');
is($put->{uri}, '/devices/m1?api-version=2021-04-12', 'its address');
is($put->{headers}{'content-type'}, 'application/json; charset=utf-8',
   'its type');
is(join(' ', grep { /^if-/ } keys %{ $put->{headers} }), '',
   'no condition: it cannot overwrite an identity');

sends('the same again', 'missing', 'm1', 'delivered', 'send 204', 'HIT');
sends('a device of the hub', 'missing', 'm2', 'delivered', 'send 204', 'MISS');

$hub->faults([{ op => 'send', error => 'DeviceNotFound', times => 1 }]);
sends('one that is there after all', 'missing', 'm3', 'delivered',
      'send 404, create 409, get 200, send 204', 'EXISTS');
$hub->faults([]);

$hub->remove('m1');
sends('deleted in the hub', 'missing', 'm1', 'delivered',
      qr/^send 404(, send 404)*, create 200, send 204$/);

$hub->faults([{ op => 'create', device => 'm4', delay => 500 },
              { op => 'send', device => 'm4', error => 'DeviceNotFound',
                times => 2 }]);

my @answers = $t->parallel([map { webhook(missing => 'm4') } 1, 2], 2);

is_deeply([map { word($_) } @answers], [('delivered') x 2], 'two at once');
ok($t->wait_for_log(qr/^m4 delivered $_$/, file => 'access.log'),
   "two at once: $_") for qw(CREATED WAITED);
$hub->faults([]);

sends('with members', 'members', 'mm', 'delivered',
      'send 404, create 200, send 204');
like(($hub->journal(op => 'create'))[0]{body},
     qr/^\{"deviceId":"mm","authentication":\{[^}]*\}\},\Q$members\E\}$/,
     'the members are merged in as they are');


# ---- register first

$hub->add('f2');

sends('first, a new device', 'first', 'f1', 'delivered',
      'create 200, send 204', 'CREATED');
sends('first, the same again', 'first', 'f1', 'delivered', 'send 204', 'HIT');
sends('first, a device of the hub', 'first', 'f2', 'delivered',
      'create 409, send 204', 'EXISTS');
$hub->remove('f2');
sends('first, deleted in the hub', 'first', 'f2', 'delivered',
      qr/^send 404(, \w+ \d+)*, create 200, send 204$/);


# ---- none is to be created

$hub->add('o2', 'zero2');

sends('off, a new device', 'off', 'o1', '422 blocked', 'send 404', 'MISS');
sends('off, a device of the hub', 'off', 'o2', 'delivered', 'send 204');

for my $register (qw(missing first)) {
    sends("iothub_create 0, $register", "never/$register", "o-$register",
          '422 blocked', 'send 404', 'MISS');
}

sends('iothub_create 0, a device of the hub', 'never/first', 'o2', 'delivered',
      'send 204');
sends('iothub_create by a map', 'wanted/missing', 'yes1', 'delivered',
      'send 404, create 200, send 204');
sends('iothub_create by a map, 0', 'wanted/missing', 'zero1', '422 blocked',
      'send 404');
sends('iothub_create by a map, empty', 'wanted/missing', 'empty1',
      '422 blocked', 'send 404');
sends('iothub_create by a map, a device of the hub', 'wanted/first', 'zero2',
      'delivered', 'send 204');

is((grep { /^(?:o1|o-|zero1|empty1)/ } map { ref ? $_->{deviceId} : $_ }
    $hub->devices), 0, 'and none was');


# ---- the rate of creations

sub is_limited {
    my ($name, $seconds, $answer) = @_;

    cmp_ok($answer->{time}, '<', 0.9, "$name: at once");
    cmp_ok($answer->{headers}{'retry-after'} // 0, '>=', $seconds / 2,
           "$name: Retry-After tells when there is a turn");
    cmp_ok($answer->{headers}{'retry-after'} // 0, '<=', $seconds + 10,
           "$name: not more");
}

$hub->add('l4');

sends("rate, in the burst: $_", 'limited', $_, 'delivered',
      'send 404, create 200, send 204') for qw(l1 l2);
is_limited('rate', 60, sends('rate, after the burst', 'limited', 'l3',
                             '503 creation_limited', 'send 404', 'MISS'));
sends('rate, a known device', 'limited', 'l1', 'delivered', 'send 204');
sends('rate, a device of the hub', 'limited', 'l4', 'delivered', 'send 204');

$hub->add('fl2');

sends('first, in the burst', 'firstlimited', 'fl1', 'delivered',
      'create 200, send 204');

my $answer = sends('first, after the burst', 'firstlimited', 'fl2',
                   'delivered', 'send 204');

cmp_ok($answer->{time}, '<', 2, 'first, after the burst: at once');
is_limited('first', 10, sends('first, after the burst, a new device',
                              'soon/firstlimited', 'fl3',
                              '503 creation_limited', 'send 404'));

# what gets its turn in time waits for it

$hub->forget;
@answers = $t->parallel([map { webhook(orderly => "q$_") } 1 .. 4], 4);
is((grep { word($_) eq 'delivered' } @answers), 4,
   'creations that wait for their turn');

my @puts = sort { $a <=> $b } map { $_->{time} } $hub->journal(op => 'create');

is(scalar @puts, 4, 'are made');
cmp_ok($puts[3] - $puts[0], '>', 0.65, 'at their rate');

@answers = $t->parallel([map { webhook(unlimited => "u$_") } 1 .. 120], 20);
is((grep { word($_) eq 'delivered' } @answers), 120, 'rate=off has no rate');


# ---- a registry that does not create

$hub->add(map { "r$_" } 1 .. 9);

my @troubles = (
    ['429', '503 creation_limited', status => 429],
    ['401', '503 credentials', status => 401],
    ['403', '503 credentials', code => 403000],
    ['quota', '503 quota', code => 403002],
    ['400', '503 misconfigured', status => 400],
    ['405', '503 misconfigured', status => 405],
    ['500', '503 unavailable', status => 500],
    ['503', '503 unavailable', status => 503],
    ['a closed connection', '503 unavailable', close => 'before'],
);

my $n = 0;
my $which = 'a';

for my $trouble (@troubles) {
    my ($name, $word, %fault) = @$trouble;

    $hub->faults([{ op => 'create|get', %fault }]);

    sends("missing, registry: $name", "soon/missing$which", 'r-' . ++$n,
          $word, qr/^send 404(, create \d+)+$/);
    sends("missing, registry: $name, a device of the hub",
          "soon/missing$which", "r$n", 'delivered', 'send 204');
    sends("first, registry: $name, a device of the hub", "soon/first$which",
          "r$n", 'delivered', qr/^create (\d+)(, create (401|0))?, send 204$/);
    $which++;
}

$hub->faults([{ op => 'create', status => 429, retry_after => 7 }]);
is(sends('throttled with Retry-After', "soon/missing$which", 'r-ra',
         '503 creation_limited', 'send 404, create 429')
   ->{headers}{'retry-after'}, 7, 'the sender is told when');

$hub->faults([{ op => 'create', status => 500, times => 1 }]);
sends('one failure', 'missing', 'r-once', 'delivered',
      'send 404, create 500, create 200, send 204', 'CREATED');

# it hangs: the deadline is kept, and who exists is not held back

$hub->add('h2', 'h3');
$hub->faults([{ op => 'create', device => 'h1', delay => 2500 },
              { op => 'send', device => 'h1', error => 'DeviceNotFound',
                times => 2 }]);
$hub->forget;

@answers = $t->parallel([webhook('soon/missing', 'h1'),
    webhook('soon/missing', 'h1'), webhook('soon/missing', 'h2')], 3);

is_deeply([sort map { word($_) } @answers],
          ['503 creation_limited', '504 timeout', 'delivered'],
          'missing, hanging: the creator, who waits for it, who needs none');
cmp_ok($answers[$_]{time}, '<', 1.8, 'at the deadline') for 0, 1;
cmp_ok($answers[2]{time}, '<', 0.8, 'at once');

# first: the registry is given 2 seconds, then the message is sent

$hub->faults([{ op => 'create', device => 'h3', hang => 1 }]);
@answers = $t->parallel([map { webhook(first => 'h3') } 1 .. 3], 3);
is_deeply([map { word($_) } @answers], [('delivered') x 3],
          'first, hanging: delivered');
cmp_ok($_->{time}, '<', 5, 'in time') for @answers;
is(scalar $hub->journal(op => 'create', device => 'h3'), 1, 'by one creation');
$hub->faults([]);

# what the late answer told is known

sends('created after the deadline', 'missing', 'h1', 'delivered', 'send 204',
      'HIT');

$t->done;
