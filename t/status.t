#!/usr/bin/perl

# iothub_status: what each hub has done and how it is, as JSON and in the
# format of Prometheus; exact over workers, kept over a reload; whether a hub
# is usable, and what is known of one device.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new(allow => [qr/refuses every key of policy/]);
my $hub = $t->hub(tls => 0);

my $json = 'application/json';
my $form = 'application/x-www-form-urlencoded';


# hubs of one simulator: each has its own zone, and its devices its name

sub conf {
    my ($workers) = @_;

    return "\n" . join('', map {
        $hub->block("zone 1m; $_->[1]") =~ s/contoso/$_->[0]/r . "\n"
    } ['main', ''], ['dead', ''], ['quota', ''], ['quick', ''],
      ['odd.na-me_1', ''], ['idle', ''], ['mute', 'proxy_read_timeout 300ms;'],
      ['limited', 'register missing rate=6r/m burst=1;'],
      ['scoped', 'token_scope device;']) . <<'CONF';

    iothub_secret off;
    error_page 404 405 503 = /never;

    server {
        listen 127.0.0.1:%%PORT_8080%% reuseport;

        location = /never { return 200 "error_page\n"; }

        location = /status { iothub_status; }
        location = /json { iothub_status json; }
        location = /metrics { iothub_status prometheus; }
        location = /worker { return 200 $pid; }

        location = /any { iothub_pass $arg_hub; }
        location = /main { iothub_pass main; iothub_match temp batch; }
        location = /secret {
            iothub_pass main;
            iothub_secret header=X-Secret file=good.secret;
        }
        location = /custom {
            iothub_pass main;
            iothub_source custom;
            iothub_device_id $arg_device;
        }
        location = /batch {
            iothub_pass main;
            iothub_source custom;
            iothub_each json:/events;
            iothub_device_id $device;
            iothub_match batch;
            iothub_event $event;
        }
        location = /patience {
            iothub_pass mute;
            iothub_deadline 2s;
        }
    }

    iothub_field $device json:/device;
    iothub_field $event json:/event;
CONF
}

$t->write_file('good.secret', "the word\n", 0600);
$t->nginx(conf(), workers => 2);


sub slurp {
    my ($name) = @_;

    open my $fh, '<', $name or die "$name: $!";
    local $/;
    return <$fh>;
}


sub status {
    my ($uri) = @_;

    my $answer = $t->get($uri // '/status');

    return decode_json($answer->{body});
}

sub of { return status()->{hubs}{ $_[0] } }

sub webhook {
    my ($uri, $device, $event) = @_;

    return $t->post($uri, "event=" . ($event // 'temp')
                          . "&data=1&coreid=$device",
                    'Content-Type' => $form)->{status};
}

# samples of the metrics: { name{labels} => value }

sub metrics {
    my ($uri) = @_;

    return +{ $t->get($uri // '/metrics')->{body}
              =~ /^([^#\s]\S*(?:\{.*\})?) (\S+)$/mg };
}


# ---- before anything has happened

my $answer = $t->get('/status');

is($answer->{status}, 200, 'JSON: 200');
is($answer->{headers}{'content-type'}, 'application/json', 'JSON: type');
is($answer->{headers}{'cache-control'}, 'no-store', 'JSON: not cached');
is($answer->{body}, $t->get('/json')->{body}, 'json is the default');

my $all = decode_json($answer->{body});

is_deeply([sort keys %{ $all->{hubs} }],
          [sort qw(main dead quota quick idle mute limited scoped odd.na-me_1)],
          'all hubs');
my ($version) = slurp("$FindBin::Bin/../CHANGES")
    =~ /^Changes with ngx_http_iothub_module (\S+)/m;

is($all->{version}, $version, 'version of the module, as CHANGES has it');
like($all->{nginx}, qr/^1\.\d+\.\d+$/, 'version of nginx');
like($all->{openssl}, qr/\d\.\d/, 'version of OpenSSL');
like($all->{time}, qr/^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ$/, 'time');

my $idle = $all->{hubs}{idle};

is_deeply($idle->{$_}, undef, "nothing yet: $_")
    for qw(last_delivered token_age last_error);
is_deeply($idle->{$_}, {}, "nothing yet: $_")
    for qw(webhooks events deliveries);
is($idle->{usable}, JSON::PP::true, 'nothing yet: usable');
is_deeply($idle->{gates}{$_}, { closed => JSON::PP::false },
          "nothing yet: gate $_") for qw(send registry quota);
is($idle->{delivery_seconds}{count}, 0, 'nothing yet: no delivery');
cmp_ok($idle->{identities}{capacity}, '>', 60_000, 'capacity of 1m');


# ---- webhooks, events, calls

is(webhook('/main', 'main-1'), 204, 'a new device');
is(webhook('/main', 'main-1'), 204, 'a known device');
is(webhook('/main', 'main-1', 'other'), 204, 'a filtered event');
is(webhook('/main', 'main/1'), 422, 'a rejected event');
is(webhook('/secret', 'main-1'), 401, 'an unauthorized webhook');
is($t->post('/main', 'x' x 10, 'Content-Type' => 'text/plain')->{status},
   415, 'of another type');
is($t->request('DELETE', '/main')->{status}, 405, 'by another method');
is($t->post('/custom?device=main-2', '["' . 'x' x 5000 . '"]',
            'Content-Type' => $json)->{status}, 204, 'of another source');
is($t->post('/main', '{', 'Content-Type' => $json)->{status}, 400,
   'malformed');

my $main = of('main');

is_deeply($main->{webhooks},
          { particle => { delivered => 2, filtered => 1, rejected => 1,
                          unauthorized => 1, unsupported_media_type => 1,
                          method_not_allowed => 1, malformed => 1 },
            custom => { delivered => 1 } },
          'webhooks by source and result');
is_deeply($main->{events},
          { delivered => 3, filtered => 1, rejected => 1, unauthorized => 1,
            unsupported_media_type => 1, method_not_allowed => 1,
            malformed => 1 }, 'events by result');
is_deeply($main->{deliveries}, { delivered => 3 }, 'deliveries by result');
is_deeply($main->{calls},
          { send => { 204 => 3, 404 => 2 }, create => { 200 => 2 },
            ask => {} }, 'calls by operation and status');
is($main->{delivery_seconds}{count}, 3, 'deliveries are timed');
is($main->{delivery_seconds}{le}{'+Inf'}, 3, 'the last bound has them all');
is($main->{call_seconds}{send}{count}, 5, 'calls are timed: send');
is($main->{call_seconds}{create}{count}, 2, 'calls are timed: create');
is($main->{identities}{created}, 2, 'identities created');
is($main->{identities}{known} + $main->{identities}{settling}, 2,
   'identities in the cache');
is($main->{message_blocks}, 4, 'blocks of 4 KB: one, one, and two');
cmp_ok($main->{last_delivered}{age}, '<', 60, 'delivered not long ago');
cmp_ok($main->{token_age}, '<', 60, 'a token of not long ago');
is($main->{key}, 'primary', 'the primary key');

$hub->add('scoped-1');
is(webhook('/any?hub=scoped', 'scoped-1'), 204, 'with a token of the device');
like(of('scoped')->{token_age}, qr/^\d+$/, '... it has an age, too');
is($main->{last_error}, undef, 'no delivery has failed');


# ---- several events in a webhook

is($t->post('/batch', '{"events":[{"device":"main-1","event":"batch"},'
            . '{"device":"main-1","event":"batch"},'
            . '{"device":"main-1","event":"no"},'
            . '{"device":"","event":"batch"}]}',
            'Content-Type' => $json)->{status}, 422, 'several events');

my $more = of('main');

is($more->{webhooks}{custom}{rejected}, 1, 'one webhook');
is($more->{events}{delivered}, 5, 'events of one message');
is($more->{events}{filtered}, 2, 'an event that is not wanted');
is($more->{events}{rejected}, 2, 'an event without a device');
is($more->{deliveries}{delivered}, 4, 'one delivery');
is($more->{message_blocks}, 6, 'a block for each message of a batch');


# ---- a hub of a variable; none

is(webhook('/any?hub=idle', 'idle-1'), 204, 'a hub by a variable');
is(webhook('/any?hub=nowhere', 'x-1'), 503, 'a hub that is not declared');
is(webhook('/any?hub=odd.na-me_1', 'odd-1'), 204, 'an odd name');
is($t->post('/any?hub=idle', '{', 'Content-Type' => $json)->{status}, 400,
   'malformed, before the variable counts');

$all = status();

is_deeply($all->{hubs}{idle}{webhooks}, { particle => { delivered => 1 } },
          'counted by its hub');
is_deeply($all->{webhooks},
          { particle => { misconfigured => 1, malformed => 1 } },
          'counted without a hub');
is_deeply($all->{hubs}{'odd.na-me_1'}{webhooks},
          { particle => { delivered => 1 } }, 'a strange name in JSON');


# ---- only one hub; a device

is_deeply([keys %{ status('/status?hub=idle')->{hubs} }], ['idle'],
          'hub=NAME: only that one');
is_deeply([keys %{ status('/status?a=b&hub=odd%2ena-me_1')->{hubs} }],
          ['odd.na-me_1'], 'hub=NAME is decoded');
is($t->get('/status?hub=nowhere')->{status}, 404, 'no such hub: 404');
is($t->get('/metrics?hub=nowhere')->{status}, 404, 'no such hub: 404 again');

my $device = status('/status?device=main-1&hub=main');

like(delete $device->{age}, qr/^\d+$/, 'a device: age');
like(delete $device->{identity}, qr/^(known|settling)$/, 'a device: known');
is_deeply($device, { hub => 'main', device => 'main-1' }, 'a device');
is(status('/status?device=m%61in-%31&hub=main')->{identity},
   status('/status?device=main-1&hub=main')->{identity},
   'a device: decoded');
is(status('/status?device=nobody&hub=main')->{identity}, 'unknown',
   'a device that is not known');
is(status('/status?device=a%25b%27:+%3b&hub=main')->{device}, q(a%b':+;),
   'a device with all sorts of characters');
is($t->get('/status?device=main-1')->{status}, 400, 'a device of which hub?');

for my $id ('', 'a%22b', 'a%5cb', '%ff', '%00', 'x' x 129, '%01' x 2500) {
    my $name = 'what is no device id: ' . substr $id, 0, 9;

    $answer = $t->get("/status?hub=main&device=$id");
    is($answer->{status}, 400, "$name: 400");
    is_deeply(eval { decode_json($answer->{body}) },
              { title => 'No device has such an id', status => 400 },
              "$name: in JSON");
}

$hub->add('quick-1');
$hub->disable('quick-1');
is(webhook('/any?hub=quick', 'quick-1'), 422, 'a disabled device');
is(status('/status?device=quick-1&hub=quick')->{identity}, 'blocked',
   'a device that is blocked');
is(of('quick')->{identities}{blocked}, 1, 'it is counted');

my $error = of('quick')->{last_error};

is_deeply([@$error{qw(device result step)}],
          ['quick-1', 'blocked', $error->{step}], 'the last error');
cmp_ok($error->{status}, '>=', 200, 'the last error: status');
like($error->{detail}, qr/disabled in the hub/, 'the last error: detail');
cmp_ok($error->{age}, '<', 60, 'the last error: age');
is(of('quick')->{usable}, JSON::PP::true, 'it says nothing of the hub');


# ---- gates and health

is($t->get('/status?health&hub=quota')->{status}, 200, 'usable: 200');
is_deeply(status('/status?hub=quota&health=1'),
          { usable => JSON::PP::true, result => '-' }, 'usable');

$hub->add('quota-1');
$hub->faults([{ op => 'send', device => 'quota-1', status => 403,
               code => 403002, error => 'IotHubQuotaExceeded' }]);
is(webhook('/any?hub=quota', 'quota-1'), 503, 'the quota is spent')
    for 1, 2;
is(of('quota')->{deliveries}{quota}, 2,
   'a spent quota is counted, by the hub or by the gate');

$answer = $t->get('/status?health&hub=quota');
is($answer->{status}, 503, 'not usable: 503, not error_page');
is_deeply(decode_json($answer->{body}),
          { usable => JSON::PP::false, result => 'quota' }, 'not usable');
is($t->get('/status?health&hub=main')->{status}, 200, 'another hub is');
is($t->get('/status?health')->{status}, 503, 'all of them are not');

my $gate = of('quota')->{gates}{quota};

is($gate->{closed}, JSON::PP::true, 'the gate is closed');
is($gate->{result}, 'quota', 'the gate: why');
cmp_ok($gate->{seconds}, '>', 1, 'the gate: how long');
cmp_ok($gate->{seconds}, '<=', 60, 'the gate: no longer');

# each fails by itself, and says nothing before the third

$hub->add("mute-$_") for 1 .. 3;
$hub->faults([{ op => 'send', device_re => '^mute-', delay => 20_000 }]);

for my $n (1 .. 3) {
    is($t->get('/status?health&hub=mute')->{status}, 200,
       "usable after " . ($n - 1) . " failures");
    is(webhook('/patience', "mute-$n"), 504, "failure $n");
}

is($t->get('/status?health&hub=mute')->{status}, 503, 'not usable');

my $mute = of('mute');

is($mute->{result}, 'timeout', 'not usable: why');
cmp_ok($mute->{retries}, '>', 0, 'retries are counted');
cmp_ok($mute->{calls}{send}{none}, '>', 3, 'calls without an answer');
is($mute->{delivery_seconds}{count}, 3, 'deliveries that failed are timed');

$hub->faults([]);
is(webhook('/any?hub=mute', 'mute-1'), 204, 'a success');
is($t->get('/status?health&hub=mute')->{status}, 200, 'usable again');


# ---- keys

$hub->policies({ webhooks => { primary => 'b3RoZXI=', secondary => 'b3RoZXI=',
                               rights => [qw(RegistryRead RegistryWrite
                                             DeviceConnect)] } });
is(webhook('/any?hub=dead', "dead-$_"), 503, 'no key works') for 1 .. 3;
is(of('dead')->{last_error}{result}, 'credentials', 'refused keys');
is(of('dead')->{deliveries}{credentials}, 3,
   'refused keys are counted, by the hub or by the gate');
is($t->get('/status?health&hub=dead')->{status}, 503,
   'a hub that refuses every key');
$hub->policies(undef);


# ---- the rate of creations

is(webhook('/any?hub=limited', 'limited-1'), 204, 'within the rate');

my $backlog = of('limited')->{creation_backlog};

cmp_ok($backlog, '>', 0, 'the next creation would wait');
cmp_ok($backlog, '<=', 10, 'for its turn');
is(of('main')->{creation_backlog}, 0, 'not with another hub');


# ---- a sender that goes away

$hub->faults([{ op => 'send', device => 'mute-2', delay => 10_000 }]);

my $socket = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                   PeerPort => $t->port)
    or die "connect: $!";
my $body = 'event=e&coreid=mute-2&data=1';

my $timeouts = of('mute')->{webhooks}{particle}{timeout};

$socket->print("POST /patience HTTP/1.1\r\nHost: x\r\nContent-Type: $form\r\n"
               . 'Content-Length: ' . length($body) . "\r\n\r\n$body");
$hub->wait_for('send', 1, 15, device => 'mute-2');
close $socket;

my $deadline = time + 30;

while (time < $deadline
       && of('mute')->{webhooks}{particle}{timeout} == $timeouts)
{
    select undef, undef, undef, 0.1;
}

is(of('mute')->{webhooks}{particle}{timeout}, $timeouts + 1,
   'a sender that goes away is counted');
$hub->faults([]);


# ---- Prometheus

$answer = $t->get('/metrics');

is($answer->{headers}{'content-type'},
   'text/plain; version=0.0.4; charset=utf-8', 'Prometheus: type');

my %type = $answer->{body} =~ /^# TYPE (\S+) (\S+)$/mg;
my %help = $answer->{body} =~ /^# HELP (\S+) (.+)$/mg;

is_deeply([sort keys %type], [sort keys %help], 'Prometheus: type and help');

my $samples = metrics();

is_deeply([grep {
               my ($name) = /^(\w+)/;

               !$type{$name} && !$type{ $name =~ s/_(?:bucket|sum|count)$//r };
           } sort keys %$samples], [], 'Prometheus: all samples have a type');

is($samples->{'iothub_webhooks_total{hub="main",source="particle",'
              . 'result="delivered"}'}, 2, 'Prometheus: webhooks');
is($samples->{'iothub_webhooks_total{hub="main",source="particle",'
              . 'result="throttled"}'}, 0, 'Prometheus: zeros, too');
ok(!exists $samples->{'iothub_webhooks_total{hub="main",source="sigfox",'
                      . 'result="delivered"}'}, 'Prometheus: in use');
is($samples->{'iothub_webhooks_total{hub="",source="particle",'
              . 'result="misconfigured"}'}, 1, 'Prometheus: without a hub');
is($samples->{'iothub_calls_total{hub="main",operation="send",status="404"}'},
   2, 'Prometheus: calls');
is($samples->{'iothub_call_duration_seconds_bucket{hub="main",'
              . 'operation="create",le="+Inf"}'}, 2, 'Prometheus: histogram');
is($samples->{'iothub_gate_closed{hub="quota",gate="quota",result="quota"}'},
   1, 'Prometheus: a closed gate');
is($samples->{'iothub_gate_closed{hub="main",gate="quota",result=""}'}, 0,
   'Prometheus: an open gate');
is($samples->{'iothub_usable{hub="quota"}'}, 0, 'Prometheus: not usable');
is($samples->{'iothub_usable{hub="main"}'}, 1, 'Prometheus: usable');
is($samples->{'iothub_usable{hub="odd.na-me_1"}'}, 1,
   'Prometheus: a strange name');
is($samples->{'iothub_key_in_use{hub="main",key="primary"}'}, 1,
   'Prometheus: the key');
cmp_ok(abs($samples->{'iothub_last_delivered_timestamp_seconds{hub="main"}'}
           - time), '<', 300, 'Prometheus: the last delivery');
is((grep { /hub="(?!main)/ } keys %{ metrics('/metrics?hub=main') }), 0,
   'Prometheus: only one hub');

like($t->request('HEAD', '/metrics')->{headers}{'content-length'},
     qr/^\d{4,}$/, 'HEAD');
is($t->post('/status', 'x')->{status}, 200, 'POST: 405, as error_page says');


# ---- exact over workers, and kept over a reload

my $before = of('main');
my @webhooks = map {
    { method => 'POST', uri => '/main', headers => { 'Content-Type' => $form },
      body => "event=temp&data=1&coreid=main-1" }
} 1 .. 400;

is(scalar(grep { $_->{status} == 204 } $t->parallel(\@webhooks, 20)), 400,
   'webhooks side by side');

my %pids = map { $t->get('/worker')->{body} => 1 } 1 .. 64;
my $after = of('main');

is(scalar keys %pids, 2, 'two workers answer');
is($after->{webhooks}{particle}{delivered}
   - $before->{webhooks}{particle}{delivered}, 400, 'webhooks: exact');
is($after->{events}{delivered} - $before->{events}{delivered}, 400,
   'events: exact');
is($after->{calls}{send}{204} - $before->{calls}{send}{204}, 400,
   'calls: exact');
is($after->{delivery_seconds}{count} - $before->{delivery_seconds}{count},
   400, 'histograms: exact');

$t->reload(conf(), workers => 3);

is_deeply([@{ of('main') }{qw(webhooks events deliveries calls identities
                               message_blocks)}],
          [@$after{qw(webhooks events deliveries calls identities
                      message_blocks)}], 'kept over a reload');
is_deeply(status()->{webhooks},
          { particle => { misconfigured => 1, malformed => 1 } },
          'kept over a reload: without a hub');

# a hub that is taken out, one that is new, and the first one back again

my $served = of('main')->{webhooks};

is_deeply(of('idle')->{webhooks}, { particle => { delivered => 1 } },
          'before a hub is taken out');
ok($t->reload(conf() =~ s/^iothub idle /iothub fresh /mr, workers => 3,
              wait_old => 1), 'a reload without a hub, and with a new one');

$all = status()->{hubs};
$samples = metrics();

ok(!exists $all->{idle}, 'a hub that is taken out');
is((grep { /hub="idle"/ } keys %$samples), 0, '... of Prometheus, too');
is($t->get('/status?health&hub=idle')->{status}, 404, '... 404');
is_deeply($all->{fresh}{webhooks}, {}, 'a new hub');
is($samples->{'iothub_calls_total{hub="fresh",operation="send",'
              . 'status="204"}'}, 0, '... with zeros');
is_deeply($all->{main}{webhooks}, $served, '... and the others as before');

ok($t->reload(conf(), workers => 3, wait_old => 1), 'a reload with it');
is_deeply(of('idle')->{webhooks}, {}, 'a hub that comes back: from zero');

is(webhook('/main', 'main-1'), 204, 'goes on');
is(of('main')->{webhooks}{particle}{delivered},
   $after->{webhooks}{particle}{delivered} + 1, 'counts on');


# ---- the directive

for (['iothub_status xml;', 'invalid format "xml" in iothub_status, write '
                            . '"json" or "prometheus"'],
     ['iothub_status; iothub_status;',
      '"iothub_status" directive is duplicate'],
     ['iothub_pass main; iothub_status;', '"iothub_status" directive cannot '
      . 'be where "iothub_pass" is: give it a location of its own'],
     ['iothub_status; iothub_pass main;', '"iothub_pass" directive cannot be '
      . 'where "iothub_status" is: give it a location of its own'])
{
    my ($exit, $output) = $t->nginx_t($hub->block =~ s/contoso/main/r
        . "\nserver { location / { $_->[0] } }\n");

    isnt($exit, 0, "$_->[0]: refused");
    like($output, qr/\[emerg\] .*\Q$_->[1]\E in /, "$_->[0]: why");
}

$t->done;
