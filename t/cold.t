#!/usr/bin/perl

# What a cold cache costs, counted against the ideal: nothing in "register
# missing", one creation a device in "register first".  Over two workers, at
# full speed.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use List::Util qw(shuffle);
use Test::More;
use IoTHubTest;

my $DEVICES = $ENV{IOTHUB_TEST_VALGRIND} ? 200 : 2000;
my $CONCURRENCY = 64;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

my @known = map { sprintf 'known-%04d', $_ } 1 .. $DEVICES;
my @half = map { sprintf 'half-%04d', $_ } 1 .. $DEVICES / 2;

$hub->add([splice @{ [@known] }, $_ * 100, 100]) for 0 .. $DEVICES / 100 - 1;

# every second of these exists
$hub->add([grep { /[02468]\z/ } @half]);

(my $first = $hub->block('register first rate=off;')) =~ s/contoso/first/;

$t->nginx("$first\n" . <<'CONF', error_level => 'notice');

    %%IOTHUB%%

    iothub_secret off;

    log_format worker '$pid $iothub_identity $iothub_hub_status';
    access_log %%TESTDIR%%/access.log worker;

    server {
        # shared out by the kernel: both workers get their part
        listen 127.0.0.1:%%PORT_8080%% reuseport;

        location /missing { iothub_pass contoso; }
        location /first { iothub_pass first; }
    }

CONF

my $logged = 0;


# deliver(NAME, URI, DEVICES, %want): a webhook of each; then what the hub has
# seen is compared with %want

sub deliver {
    my ($name, $uri, $devices, %want) = @_;

    $hub->forget;

    my @answers = $t->parallel([map { [POST => $uri,
        body => "event=temp&coreid=$_&data=1", headers =>
            { 'Content-Type' => 'application/x-www-form-urlencoded' }] }
        @$devices], $CONCURRENCY, keepalive => 1);

    is((grep { $_->{status} == 204 } @answers), @$devices,
       "$name: all delivered");

    my %calls = (send => 0, create => 0);
    my %creations;

    for ($hub->journal(brief => 1)) {
        $calls{ $_->{op} }++;
        $creations{ $_->{device} }++ if $_->{op} eq 'create';
    }

    %want = (send => scalar @$devices, create => 0, %want);

    is($calls{$_}, $want{$_},
           "$name: $want{$_} times $_, as is ideal")
        for qw(send create);
    is(join(' ', grep { !defined $want{$_} } keys %calls), '',
       "$name: no other hub call");
    is((grep { $_ > 1 } values %creations), 0,
       "$name: no device is created twice");

    $logged += @$devices;

    ok($t->wait_for_log(qr/./, count => $logged, file => 'access.log'),
       "$name: all in the log");

    my %workers = map { (split ' ')[0] => 1 }
        (split /^/m, $t->access_log)[-@$devices .. -1];

    is(keys %workers, 2, "$name: by two workers");
}

deliver('missing, cold', '/missing', [shuffle @known]);
deliver('missing, warm', '/missing', [shuffle @known]);

# two webhooks of each device at about the same time

deliver('first, cold', '/first', [map { ($_, $_) } @half],
        create => scalar @half);
deliver('first, warm', '/first', [shuffle @half]);

# its identities are known by now

deliver('missing, of new devices', '/missing', [shuffle @half]);

is(scalar $t->log_lines(qr/\[(?:error|warn)\]/), 0, 'no word in the log');

$t->done;
