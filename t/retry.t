#!/usr/bin/perl

# What passes is tried again: with the same message id, not before the hub
# allows it, and never beyond iothub_deadline.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use Time::HiRes qw(sleep);
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub;

sub gateway {
    my ($name, $more) = @_;

    (my $block = $hub->block("zone 1m; $more")) =~ s/contoso/$name/;

    return "$block\n";
}

# a spent quota and a throttle hold back all of their hub: they get their own

$t->nginx(gateway(impatient => 'proxy_read_timeout 300ms;')
          . join('', map { gateway($_, '') } qw(throttled patient quota))
          . <<'CONF');

    %%IOTHUB%%

    iothub_secret off;

    log_format outcome '$iothub_device_id $iothub_result $iothub_tries';
    access_log %%TESTDIR%%/access.log outcome;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass contoso; }
        location /impatient { iothub_pass impatient; }
        location /throttled { iothub_pass throttled; }
        location /quota { iothub_pass quota; }

        location /patient {
            iothub_deadline 1500ms;
            iothub_pass patient;
        }

        location /soon {
            iothub_deadline 1500ms;
            iothub_pass contoso;
        }
    }

CONF


sub webhook {
    my ($device, $uri) = @_;

    return [POST => $uri // '/', body => "event=temp&coreid=$device&data=1",
            headers => { 'Content-Type' =>
                         'application/x-www-form-urlencoded' }];
}


sub word {
    my ($answer) = @_;

    return 'delivered' if $answer->{status} == 204;

    return "$answer->{status} "
        . (eval { decode_json($answer->{body})->{code} } // 'no problem');
}


sub tries {
    my ($device) = @_;

    ok($t->wait_for_log(qr/^$device /, file => 'access.log'),
       "$device: in the log");

    my ($line) = $t->log_lines(qr/^$device /, 'access.log');

    return (split ' ', $line // '')[2];
}


# ---- faults that pass: each of its own device, all at once

my @passing = (
    [500 => 2, status => 500],
    [503 => 2, status => 503],
    [502 => 1, status => 502, format => 'html'],
    [504 => 1, status => 504, format => 'empty'],
    [408 => 2, status => 408],
    [429 => 2, status => 429],
    [400021 => 2, code => 400021],
    [400029 => 1, code => 400029, format => 2],
    [404012 => 1, code => 404012],
    [409000 => 1, code => 409000],
    ['interim', 1, interim => 102, status => 500],
    ['no-http', 1, raw => "hello\r\n"],
    ['middle', 1, accept => 1, close => 'middle'],
    ['truncated', 1, accept => 1, status => 200, oversize => 5000,
     close => 'middle'],
    ['accepted-500', 1, accept => 1, status => 500],
    ['accepted-reset', 1, accept => 1, reset => 1],
    ['accepted-close', 1, accept => 1, close => 'before'],
);

my @devices = map { "p-$_->[0]" } @passing;

$hub->add(@devices);

# nginx itself repeats what failed on a connection that was kept alive, so
# there may be a fault for each of its repeats

$hub->faults([map { my ($name, $times, %fault) = @$_;
                    { op => 'send', device => "p-$name", times => $times,
                      %fault } } @passing]);

my @answers = $t->parallel([map { webhook($_) } @devices], scalar @devices);

for my $i (0 .. $#passing) {
    my ($name, $times, %fault) = @{ $passing[$i] };
    my $device = $devices[$i];
    my @sent = $hub->journal(device => $device, op => 'send');
    my %ids = map { $_->{headers}{'iothub-messageid'} => 1 } @sent;

    is(word($answers[$i]), 'delivered', "$name: delivered");
    is(scalar @sent, $times + 1, "$name: once more than it failed");
    is($sent[-1]{status}, 204, "$name: the last is accepted");
    is(keys %ids, 1, "$name: with one message id");
    ok((keys %ids)[0], "$name: there is one");
    is(scalar $hub->messages(device => $device), $fault{accept} ? 2 : 1,
       $fault{accept} ? "$name: at least once" : "$name: one message");
}

is(tries('p-500'), 3, '$iothub_tries');

my @all = $hub->journal(op => 'send', accepted => 1);
my %ids = map { $_->{headers}{'iothub-messageid'} => 1 } @all;

is(keys %ids, @passing, 'different messages have different ids');


# ---- a connection that was kept alive, and is closed

$hub->faults([]);

sub alone {
    my (@webhook) = @_;

    my ($answer) = $t->parallel([webhook(@webhook)], 1);

    return $answer;
}

for my $close (qw(before request)) {
    $hub->add(map { "k-$close-$_" } 1 .. 12);

    # so many that either worker has a connection
    alone("k-$close-$_") for 1 .. 10;

    $hub->faults([{ op => 'send', device => "k-$close-11", times => 1,
                    close => $close }]);

    my $answer = alone("k-$close-11");

    is($answer->{status}, 204, "kept alive, closed ($close): delivered");
    cmp_ok(tries("k-$close-11"), '<=', 2, "kept alive, closed ($close): "
           . 'repeated');

    my %ids = map { $_->{headers}{'iothub-messageid'} => 1 }
        $hub->journal(device => "k-$close-11", op => 'send');

    is(keys %ids, 1, "kept alive, closed ($close): with one message id");
    is(scalar $hub->messages(device => "k-$close-11"), 1,
       "kept alive, closed ($close): one message");
    $hub->faults([]);
}

# a repeat by nginx does not wait: a fault that is used up at once takes no
# time, wherever the connection was a kept one

my $slow = 0;

for my $n (1 .. 10) {
    $hub->add("at-once-$n");
    $hub->faults([{ op => 'send', device => "at-once-$n", times => 1,
                    close => 'before' }]);

    my $answer = alone("at-once-$n");

    is($answer->{status}, 204, "at once $n: delivered");
    $slow++ if tries("at-once-$n") != 1;
    $hub->faults([]);
}

cmp_ok($slow, '<=', 2, 'repeated at once on a fresh connection');


# ---- Retry-After

$hub->add('ra1', 'ra2', 'ra3');
$hub->faults([
    { op => 'send', device => 'ra1', status => 503, times => 1,
      retry_after => 1 },
    { op => 'send', device => 'ra2', status => 429, retry_after => 60 },
    { op => 'send', device => 'ra3', status => 503, retry_after => 86400 },
]);

my $answer = alone('ra1');

is(word($answer), 'delivered', 'Retry-After: delivered');
cmp_ok($answer->{time}, '>=', 1, 'Retry-After: not before');

for my $case (['ra2', '503 throttled', 60, '/throttled'],
              ['ra3', '503 unavailable', 300, '/'])
{
    my ($device, $word, $seconds, $uri) = @$case;

    $answer = alone($device, $uri);

    is(word($answer), $word, "Retry-After beyond the deadline: $word");
    cmp_ok($answer->{time}, '<', 1, 'answered at once');
    is($answer->{headers}{'retry-after'}, $seconds, 'and told the sender');
    is(scalar $hub->journal(device => $device), 1, 'one try');
}


# ---- the deadline

$hub->add(map { "d-$_" } qw(500 429 hang close connect));
$hub->faults([
    { op => 'send', device => 'd-500', status => 500 },
    { op => 'send', device => 'd-429', status => 429 },
    { op => 'send', device => 'd-close', close => 'before' },
    { op => 'send', device => 'd-hang', delay => 2500 },
]);

@answers = $t->parallel([map {
    [@{ webhook("d-$_", $_ eq '429' ? '/patient' : '/soon') }, keepalive => 1]
} qw(500 429 close hang)], 4);

is_deeply([map { word($_) } @answers],
          ['503 unavailable', '503 throttled', '503 unavailable',
           '504 timeout'], 'always failing: what is told');
cmp_ok($_->{time}, '<', 2, 'not after the deadline') for @answers;
cmp_ok($answers[3]{time}, '>', 1.4, 'a running call is waited for');
is($answers[3]{headers}{connection}, 'close', 'then the connection is closed');
is($answers[0]{headers}{connection}, 'keep-alive', 'and else is kept');
ok(!exists $answers[3]{headers}{'retry-after'}, 'and no time is told');
cmp_ok(scalar $hub->journal(device => 'd-500'), '>', 2,
       'tried more than twice');

my %made = map { $_ => scalar $hub->journal(device => $_) }
    qw(d-500 d-429 d-close);

ok($t->wait_for_log(qr/"d-hang", step: send, .*hub status: 204/),
   'the end of the late call is in the log');
is_deeply({ map { $_ => scalar $hub->journal(device => $_) } keys %made },
          \%made, 'no call after the deadline');
is(word(alone('d-hang')), 'delivered', 'and the device is delivered again');


# ---- no answer in time

$hub->add('t1', 't2');
$hub->faults([{ op => 'send', device => 't1', hang => 1, times => 2 }]);

$answer = alone('t1', '/impatient');

is(word($answer), 'delivered', 'hanging twice: delivered');
is(tries('t1'), 3, 'hanging twice: by the third try');
%ids = map { $_->{headers}{'iothub-messageid'} => 1 }
    $hub->journal(device => 't1', op => 'send');
is(keys %ids, 1, 'hanging twice: with one message id');


# ---- what does not pass is not tried again

my @permanent = (
    ['422 refused', status => 400],
    ['422 refused', status => 413],
    ['503 quota', code => 403002],
    ['503 misconfigured', code => 400001],
    ['503 misconfigured', status => 405],
    ['503 misconfigured', status => 415],
    ['503 misconfigured', status => 404, format => 'html'],
    ['503 misconfigured', status => 302],
    ['503 misconfigured', status => 206],
);

$hub->add(map { "n-$_" } 0 .. $#permanent);
$hub->faults([map { { op => 'send', device => "n-$_",
                      %{ { @{ $permanent[$_] }[1 .. $#{ $permanent[$_] }] } } }
                  } 0 .. $#permanent]);

for my $i (0 .. $#permanent) {
    my ($word, @fault) = @{ $permanent[$i] };

    my $uri = $word =~ /quota/ ? '/quota' : '/';

    is(word(alone("n-$i", $uri)), $word, "@fault[0, 1]: $word");
    is(scalar $hub->journal(device => "n-$i"), 1, "@fault[0, 1]: one try");
}

# a hub that is not there

$hub->_stop;
@answers = $t->parallel([webhook('d-connect', '/soon')], 1);
is(word($answers[0]), '503 unavailable', 'no hub: unavailable');
cmp_ok($answers[0]{time}, '<', 2, 'no hub: not after the deadline');

$t->done;
