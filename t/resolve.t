#!/usr/bin/perl

# The hub's address where a "resolver" applies: nginx starts without it, finds
# it when it appears, follows it when it moves, and keeps it when the name
# server fails.  Kept-alive connections and balancing go on meanwhile.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;
use IoTHubTest::DNS;

my $WORKERS = 2;
my $DEVICES = 20;

# the system's own name servers are asked at the start, and may be silent
$ENV{RES_OPTIONS} = 'timeout:1 attempts:1';

my $t = IoTHubTest->new;
my $dns = IoTHubTest::DNS->start($t);
my $other_dns = IoTHubTest::DNS->start($t);

# Two simulators on the same port of two addresses.  The second listens on a
# port of the first address, too, which is that of the control calls.

my $first = $t->hub(name => 'first', hostname => 'contoso.test',
                    args => ['--hostname', 'devices.test']);
my $port = $first->port;
my $second = $t->hub(name => 'second', hostname => 'contoso.test',
                     keys => [$first->keys],
                     args => ['--hostname', 'devices.test',
                              '--listen', "127.0.0.2:$port"]);

my $ca = $t->write_file('ca.pem',
    join '', map { $t->read_file($_->ca) } $first, $second);

my @devices = map { "device-$_" } 1 .. $DEVICES;

$_->add(@devices, 'slow', 'cut') for $first, $second;


sub block {
    my ($name, $address, $more) = @_;

    my ($policy, $key) = ($first->policy, $first->key_file);

    return "iothub $name { hostname contoso.test; policy $policy; "
        . "key_file $key; proxy_ssl_trusted_certificate $ca; zone 1m; "
        . (defined $address ? "address $address; " : '')
        . ($more // '') . " }\n";
}


sub webhooks {
    my ($uri, $count, @more) = @_;

    return map { [POST => $uri, body => "event=temp&data=1&coreid=$_",
        headers => { 'Content-Type' => 'application/x-www-form-urlencoded' }]
    } @more, map { $devices[$_ % $DEVICES] } 1 .. $count;
}


sub statuses {
    my %count;

    $count{ $_->{status} }++ for @_;

    return \%count;
}


# deliver(NAME, URI, COUNT, %options): each has to get through, and those of
# the devices in "more"

sub deliver {
    my ($name, $uri, $count, %o) = @_;

    my @webhooks = webhooks($uri, $count, @{ delete $o{more} // [] });

    is_deeply(statuses($t->parallel(\@webhooks, 16, keepalive => 1, %o)),
              { 204 => scalar @webhooks }, $name);
}


sub taken { scalar $_[0]->journal(brief => 1, op => 'send', accepted => 1) }
sub forget { $_->forget for $first, $second }


# All workers use these addresses.  Each says it once.

sub now_at {
    my ($hub, $name, @addresses) = @_;

    my $any = join '|', map { quotemeta "$_:$port" } @addresses;
    my $all = join ', ', ("(?:$any)") x @addresses;

    return $t->wait_for_log(
        qr/iothub hub "$hub": address of "\Q$name\E" is now $all$/,
        count => $WORKERS);
}


# ---- the configuration

subtest 'without a resolver' => sub {
    my ($exit, $output) = $t->nginx_t(block(a => 'nowhere.test:443'));

    isnt($exit, 0, 'a name that is not found is an error');
    like($output, qr/\[emerg\].* host\ not\ found\ in\ "nowhere.test:443"\ of
                     \ hub\ "a",.*\ "resolver"\ .*\ in\ \S+:1$/mx, 'says why');
};

is(($t->nginx_t($_->[1]))[0], 0, "with a resolver $_->[0]") for
    ['in the block',
     block(a => 'nowhere.test:443', 'resolver ' . $dns->address . ';')],
    ['before the block',
     'resolver ' . $dns->address . ";\n" . block(a => 'nowhere.test:443')],
    ['after the block',
     block(a => 'nowhere.test:443') . 'resolver ' . $dns->address . ';'];

is($dns->queries('nowhere.test'), 0, 'nginx -t asks the resolver nothing');


# ---- the start

my $conf = join '', "resolver " . $dns->address . ";\n",
    'resolver_timeout 30s;',
    block(late => "late.test:$port"),
    block(moving => "Moving.Test:$port", 'proxy_read_timeout 30s;'),
    block(local => "localhost:$port"),
    block(several => "several.test:$port"),
    block(gone => "gone.test:$port",
          'resolver ' . $other_dns->address . '; resolver_timeout 1s;'),
    block(hosts => undef,
          "device_hostname devices.test:$port; register first;")
        =~ s/contoso\.test/contoso.test:$port/r,
    <<'CONF';

    iothub_secret off;
    iothub_deadline 20s;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location /late { iothub_pass late; }
        location /moving { iothub_pass moving; }
        location /local { iothub_pass local; }
        location /several { iothub_pass several; }
        location /gone { iothub_pass gone; }
        location /hosts { iothub_pass hosts; }

        location /late/soon {
            iothub_deadline 300ms;
            iothub_pass late;
        }
    }

CONF

$dns->answer('moving.test', ['127.0.0.1']);
$dns->answer('contoso.test', ['127.0.0.1']);
$dns->answer('devices.test', ['127.0.0.2']);
$dns->answer('several.test', ['127.0.0.1', '127.0.0.2']);
$dns->refuse('localhost', 'SILENT');
$other_dns->refuse('gone.test', 'SILENT');

$t->nginx($conf, workers => $WORKERS);

ok($t->wait_for_log(
    qr/\[error\].*"late.test" could not be resolved.*hub has no address/,
    count => $WORKERS), 'a name that does not exist: an error');

my ($soon) = $t->parallel([webhooks('/late/soon', 1)], 1);

is($soon->{status}, 503, 'no address: unavailable');

# the hub appears while a webhook waits for it

is_deeply(statuses($t->parallel(
    [webhooks('/late/soon', 1), webhooks('/late', 4)], 5,
    on_answer => sub { $dns->answer('late.test', ['127.0.0.1']) })),
          { 503 => 1, 204 => 4 }, 'delivered as soon as there is an address');

ok(now_at('late', 'late.test', '127.0.0.1'), 'each worker says so');


# ---- what the system said at the start

forget();
deliver('the address of the start, while the name server is silent',
        '/local', 8);
is(taken($first), 8, 'it is used');

$dns->answer('localhost', ['127.0.0.2']);


# ---- moving under load

ok(now_at('moving', 'moving.test', '127.0.0.1'), 'the first address');

deliver('a kept-alive connection is made', '/moving', 64);
forget();

# A call that still runs at the old address when the hub moves, and is cut:
# nginx would repeat it there, as it does with dead kept-alive connections.

$first->faults([{ device => 'slow', delay => 6000, close => 'before',
                  times => 1 }]);

my $rounds = 0;
my $moved = sub {
    $t->log_lines(qr/hub "moving": address .* now \Q127.0.0.2:$port\E$/)
        >= $WORKERS;
};

deliver('before, while and after the hub moves', '/moving', 600,
        more => ['slow'], on_answer => sub {
    $dns->answer('moving.test', ['127.0.0.2']) if $_[2] == 200;
});

deliver('on the way', '/moving', 200) while $rounds++ < 60 && !$moved->();

ok(now_at('moving', 'moving.test', '127.0.0.2'), 'it moved');
cmp_ok(taken($first), '>', 0, 'the old address had messages');
is((grep { $_->{op} eq 'send' } $first->journal(device => 'slow')), 1,
   'a call that was cut there is not repeated there');
is((grep { $_->{accepted} } $second->journal(device => 'slow')), 1,
   'but at the new address');

forget();

my $before = $second->connections->{accepted};

deliver('after the move', '/moving', 300);
is(taken($first), 0, 'nothing at the old address any more');
is(taken($second), 300, 'all at the new one');

my $made = $second->connections->{accepted} - $before;

cmp_ok($made, '<=', 32, "on connections kept alive: $made new ones");

is_deeply({ map { $_->{sni} => 1 } $second->journal(op => 'send') },
          { 'contoso.test' => 1 }, 'the hub\'s name is sent as ever');


# ---- the name server fails

my $failed = qr/\[warn\].*hub "moving": "moving.test" could not be resolved/;

$dns->refuse('moving.test', 'SERVFAIL');
ok($t->wait_for_log($failed, count => $WORKERS), 'a failure is a warning');
ok($dns->wait_for('moving.test', 2 * $WORKERS), 'tried again and again');
deliver('the last address stays', '/moving', 16);
is(taken($second), 316, 'the new one');
is(scalar(my @once = $t->log_lines($failed)), $WORKERS,
   'one warning of each worker');

$dns->answer('moving.test', ['127.0.0.1']);
ok($t->wait_for_log(qr/hub "moving": "moving.test" is resolved again/,
                    count => $WORKERS), 'it works again');
deliver('back at the old address', '/moving', 16);
is(taken($first), 16, 'it is used again');

my $busy = qr/no live upstreams.*moving\.iothub\.invalid/;
my @busy_before = $t->log_lines($busy);

$first->faults([{ device => 'cut', close => 'request', times => 1 }]);
deliver('a dead kept-alive connection', '/moving', 1, more => ['cut']);
is((grep { $_->{op} eq 'send' } $first->journal(device => 'cut')), 2,
   'its message is sent again to the same, only address');
is(scalar(my @busy = $t->log_lines($busy)), @busy_before,
   'which nginx itself did');


# ---- several addresses

ok(now_at('several', 'several.test', '127.0.0.1', '127.0.0.2'),
   'two addresses');

forget();
deliver('two addresses', '/several', 100);

my $share = taken($first);

ok($share > 20 && $share < 80, "balanced: $share of 100 at the first");

$dns->answer('several.test', ['127.0.0.3', '127.0.0.2', '127.0.0.1']);
ok(now_at('several', 'several.test', map { "127.0.0.$_" } 1 .. 3),
   'three, of which one is dead');
deliver('a dead one fails no webhook', '/several', 100);

my $log = scalar $t->log_lines(qr/hub "several": address/);
ok($dns->wait_for('several.test', 3 * $WORKERS), 'asked again');
is(scalar $t->log_lines(qr/hub "several": address/), $log,
   'the same addresses in another order are no news');


# ---- other ways

ok(now_at('local', 'localhost', '127.0.0.2'),
   'the name server takes the place of the system');

forget();
deliver('"localhost" of the name server', '/local', 8);
is(taken($second), 8, 'its address is used');

ok($t->wait_for_log(
    qr/\[error\].*hub "gone": "gone.test" could not be .* timed out/,
    count => $WORKERS),
   'the resolver of the block, and its timeout');
is($dns->queries('gone.test'), 0, 'the http level\'s is not asked for it');

forget();
deliver('registry and messages of different names', '/hosts', 4);
is(taken($second), 4, 'messages go to the one');
is((grep { $_->{op} eq 'create' } $first->journal(brief => 1)), 4,
   'identities to the other');


# ---- the end, with queries on their way

ok($t->reload(undef, wait_old => 1), 'a reload, and the old workers go');
$dns->refuse('late.test', 'SILENT');
ok($dns->wait_for('late.test', 1), 'a query without an answer');
deliver('with the new workers', '/several', 16);
$t->stop;

is(join('', $t->log_lines(qr/late\.test.*could not cancel/)), '', 'cancelled');

$t->done;
