#!/usr/bin/perl

# Identities that are disabled in the hub, which refuses their messages as if
# they were missing or the token were wrong: one question tells, the answer is
# remembered, and nobody else is held back.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new(allow => [qr/lacks the right device connect/]);
my $hub = $t->hub(tls => 0);

(my $first = $hub->block('register first;')) =~ s/contoso/first/;

$t->nginx("$first\n" . <<'CONF');

    %%IOTHUB%%

    iothub_secret off;

    log_format outcome '$iothub_device_id $iothub_result $iothub_identity';
    access_log %%TESTDIR%%/access.log outcome;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_pass contoso; }
        location /first { iothub_pass first; }

        location /soon {
            iothub_deadline 700ms;
            iothub_pass contoso;
        }

        location /rejected {
            iothub_rejected 200;
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


sub sends {
    my ($name, $device, $word, $calls, %o) = @_;

    $hub->forget;

    my ($answer) = $t->parallel([webhook($device, $o{uri})], 1);
    my $made = join ', ', map { "$_->{op} $_->{status}" }
        $hub->journal(device => $device);

    is(word($answer), $word, "$name: $word");

    ref $calls ? like($made, $calls, "$name: calls")
               : is($made, $calls, "$name: calls");
}


sub is_disabled {
    my ($device) = @_;

    return decode_json($hub->exchange(GET => "/simulator/devices/$device")
                       ->{body})->{status} eq 'disabled';
}

$hub->add('other');


# ---- each way in which the hub may refuse it

# name, status, what follows the first "send STATUS"

my @ways = (
    ['404', 404, ', create 409, get 200'],
    ['401', 401, ', send 401, get 200'],
    ['403', 403, ', get 200', code => 403000],
    ['403 with its code', 403, ''],
);

for my $way (@ways) {
    my ($name, $status, $more, %fault) = @$way;

    (my $device = "d$name") =~ s/ .*/-code/;

    $hub->settings({ disabled_status => $status });
    $hub->faults([{ op => 'send', device => $device, %fault }]) if %fault;
    $hub->add($device);
    $hub->disable($device);

    sends("refused by $name", $device, '422 blocked', "send $status$more");
    sends("refused by $name, again", $device, '422 blocked', '') for 1, 2;
    sends("refused by $name, for a sender that wants no 4xx", $device,
          '200 no problem', '', uri => '/rejected');

    ok(is_disabled($device), "refused by $name: not enabled again");
    ok($t->wait_for_log(qr/^$device blocked BLOCKED$/, count => 4,
                        file => 'access.log'), "refused by $name: BLOCKED");

    sends("refused by $name, another device", 'other', 'delivered',
          'send 204');

    $hub->faults([]);
}

# one that the cache knows

for my $way (@ways[0, 1]) {
    my ($name, $status, $more) = @$way;

    $hub->settings({ disabled_status => $status });
    $hub->add("k$status");

    sends("known, refused by $name", "k$status", 'delivered', 'send 204');
    $hub->disable("k$status");
    sends("known, refused by $name", "k$status", '422 blocked',
          qr/^(send $status, )*send $status$more$/);
}

$hub->settings({ disabled_status => 404 });
$hub->faults([]);

$hub->add('df');
$hub->disable('df');
sends('register first', 'df', '422 blocked', 'create 409, send 404, get 200',
      uri => '/first');
sends('register first, again', 'df', '422 blocked', '', uri => '/first');

is(scalar(grep { exists $_->{headers}{'if-match'} || $_->{op} eq 'update' }
          $hub->journal), 0, 'no identity was updated');


# ---- many at once

for my $status (404, 401) {
    my $device = "many$status";

    $hub->settings({ disabled_status => $status });
    $hub->add($device);
    $hub->disable($device);
    $hub->forget;
    $hub->faults([{ op => 'get', delay => 300 }]);

    my @answers = $t->parallel([(map { webhook($device) } 1 .. 20),
                                (map { webhook('other') } 1 .. 20)], 40);
    my %words;

    $words{ word($_) }++ for @answers[0 .. 19];

    ok($words{'422 blocked'}, "$status, twenty at once: blocked");
    is($words{delivered}, undef, "$status, twenty at once: none delivered");
    is((grep { word($_) eq 'delivered' } @answers[20 .. 39]), 20,
       "$status, twenty at once: another device is delivered");
    is(scalar $hub->journal(op => 'get'), 1,
       "$status, twenty at once: one question");
    cmp_ok(scalar $hub->journal(op => 'create'), '<=', 1,
           "$status, twenty at once: at most one creation");

    $hub->faults([]);
    sends("$status, after that", $device, '422 blocked', '');
}

# one that was under way while another found out

$hub->add('late');
$hub->disable('late');
$hub->forget;
$hub->faults([{ op => 'send', device => 'late', delay => 700, times => 1 }]);

is_deeply([map { word($_) } $t->parallel([map { webhook('late') } 1, 2], 2)],
          [('422 blocked') x 2], 'two at once, one of them slow: blocked');
is(scalar $hub->journal(op => 'get'), 1, 'two at once: one question');

$hub->faults([]);
$hub->settings({ disabled_status => 404 });


# ---- it is enabled, and refused all the same

$hub->add('e1');
$hub->faults([{ op => 'send', device => 'e1', status => 401 }]);

sends('enabled and refused', 'e1', '503 credentials',
      'send 401, send 401, get 200');
sends('enabled and refused, again', 'e1', '503 credentials', '');
sends('enabled and refused, another device', 'other', 'delivered', 'send 204');

$hub->faults([]);
sends('no longer refused', 'e1', 'delivered', 'send 204');


# ---- a question that gets no answer is put again, by the next webhook; in this
# one the device may be young

my @devices = map { "q$_" } 1 .. 3;

$hub->add(@devices);
$hub->disable($_) for @devices;

$hub->faults([{ op => 'get', status => 500 }]);
sends('the question fails', 'q1', '503 unavailable',
      'send 404, create 409, get 500' . ', send 404' x 5);
$hub->faults([]);
sends('and is put again', 'q1', '422 blocked',
      'send 404, create 409, get 200');

# by a deadline: while it is asked, and just before

$hub->faults([{ op => 'get', device => 'q2', delay => 1200 }]);
sends('asked at the deadline', 'q2', '504 timeout',
      'send 404, create 409, get 200', uri => '/soon');
ok($t->wait_for_log(qr/"q2", step: ask, .* hub status: 200/),
   'the answer comes later');
sends('and is remembered', 'q2', '422 blocked', '');

$hub->faults([{ op => 'create', device => 'q3', delay => 1200 }]);
sends('created at the deadline', 'q3', '504 timeout',
      'send 404, create 409', uri => '/soon');
ok($t->wait_for_log(qr/"q3", step: create, .* hub status: 409/),
   'the answer comes later');
sends('and does not stand for a question', 'q3', '422 blocked',
      'send 404, create 409, get 200');

# deleted and not disabled: it is created

$hub->faults([{ op => 'send', device => 'gone', status => 401, times => 2 }]);
sends('refused, and the question finds nothing', 'gone', 'delivered',
      'send 401, send 401, get 404, create 200, send 204');
$hub->faults([]);

$t->done;
