#!/usr/bin/perl

# What the sender gets for whatever the hub says: the contract's table, and
# that no answer but the hub's own success makes a 2xx.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use Time::HiRes qw(time);
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

$t->nginx($hub->block('register missing rate=off; '
                      . 'proxy_connect_timeout 1s;') . <<'CONF');

    iothub_secret off;

    log_format outcome '$iothub_device_id|$iothub_result|$iothub_hub_status|'
                       '$iothub_hub_error|$iothub_hub_request_id|'
                       '$iothub_delivery_time|$request_time';
    access_log %%TESTDIR%%/access.log outcome;

    error_page 401 404 405 413 415 422 500 502 503 504 =200 /fine;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location / { iothub_deadline 700ms; iothub_pass contoso; }
        location /slow { iothub_deadline 1s; iothub_pass contoso; }
        location /polite {
            iothub_deadline 700ms;
            iothub_rejected 204;
            iothub_pass contoso;
        }
        location /ok { iothub_accepted 200; iothub_pass contoso; }
        location = /fine { return 200 "fine"; }
    }

CONF

my $n = 0;


# a webhook of a device of its own, which exists, under faults

sub send_to {
    my ($uri, $rule, $known) = @_;

    my $device = 'dev-' . ++$n;

    $hub->add($device) unless defined $known && !$known;
    $hub->faults([{ op => 'any', device => $device, %$rule }]);

    my $answer = $t->post($uri, "coreid=$device&event=e&data=SECRETDATA");

    $answer->{device} = $device;

    return $answer;
}


sub check {
    my ($name, $answer, $status, $code) = @_;

    my $problem = eval { decode_json($answer->{body}) } // {};

    is($answer->{status}, $status, "$name: $status");
    is($problem->{code}, $code, "$name: $code");
    is($problem->{status}, $status, "$name: status in the document");
    is($answer->{headers}{'content-type'}, 'application/problem+json',
       "$name: its type");

    if ($status == 503) {
        my $after = $answer->{headers}{'retry-after'} // '';

        like($after, qr/^\d+$/, "$name: Retry-After");
        ok($after >= 1 && $after <= 300, "$name: of 1 to 300 s");
    }

    unlike($answer->{raw}, qr/SECRETDATA|HUBTEXT|SharedAccess/,
           "$name: nothing of the hub or the event");
}


subtest 'the table' => sub {
    my @rows = (
        [400, 400004, 'ArgumentInvalid', 422, 'refused'],
        [400, 400103, 'InvalidContentEncodingOrType', 422, 'refused'],
        [400, 400001, 'InvalidProtocolVersion', 503, 'misconfigured'],
        [400, 400021, 'RequestCanceled', 503, 'unavailable'],
        [400, 400024, 'RequestTimedOut', 503, 'unavailable'],
        [400, 400030, 'ConnectionRejectedOnFaultInjection', 503,
         'unavailable'],
        [401, 401002, 'IotHubUnauthorizedAccess', 503, 'credentials'],
        [403, 403002, 'IotHubQuotaExceeded', 503, 'quota'],
        [403, 403010, 'OperationNotAvailableInCurrentTier', 503,
         'misconfigured'],
        [403, 403001, 'IotHubSuspended', 503, 'misconfigured'],
        [403, 403012, 'DeviceDisabled', 422, 'blocked'],
        [404, 404012, 'IotHubFailingOver', 503, 'unavailable'],
        [404, undef, undef, 503, 'misconfigured'],
        [405, 405102, 'OperationNotAllowedInCurrentState', 503,
         'misconfigured'],
        [408, undef, undef, 503, 'unavailable'],
        [413, 413001, 'MessageTooLarge', 422, 'refused'],
        [415, 415000, 'UnsupportedMediaType', 503, 'misconfigured'],
        [429, 429001, 'ThrottlingException', 503, 'throttled'],
        [500, 500001, 'ServerError', 503, 'unavailable'],
        [502, undef, undef, 503, 'unavailable'],
        [503, 503001, 'ServiceUnavailable', 503, 'unavailable'],
        [504, undef, undef, 503, 'unavailable'],
    );

    for my $row (@rows) {
        my ($status, $code, $error, $expected, $word) = @$row;

        for my $format ($code ? (1, 2) : 'empty') {
            my %rule = (op => 'send', status => $status, format => $format);

            @rule{qw(code error message)} = ($code, $error, 'HUBTEXT')
                if $code;

            check("$status " . ($error // '') . " in format $format",
                  send_to('/', \%rule), $expected, $word);
        }
    }
};


subtest 'no identity, and its creation fails' => sub {
    my %rows = (
        429 => 'creation_limited',
        401 => 'credentials',
        500 => 'unavailable',
        400 => 'misconfigured',
    );

    for my $status (sort keys %rows) {
        check("PUT $status",
              send_to('/', { op => 'create', status => $status }, 0), 503,
              $rows{$status});
    }
};


subtest 'only the hub\'s success is one' => sub {
    for my $status (100 .. 599) {
        next if $status =~ /^(200|201|202|204)$/;
        next if $status =~ /^1/ || $status == 304;

        # a few of each class are enough, each with odd bodies
        next unless $status % 100 < 8 || $status % 100 == 26;

        my $answer = send_to('/polite', {
            op => 'send',
            raw => "HTTP/1.1 $status Odd\r\nContent-Length: 2\r\n"
                . "Connection: close\r\n\r\nok",
        });

        my $fine = $answer->{status} == 204
            && (my @m = grep { $_->{device} eq $answer->{device} }
                $hub->messages);

        # iothub_rejected answers 204 for what repeating cannot change:
        # the log has the word

        ok(!$fine, "$status: no message");
        ok($t->wait_for_log(qr/^$answer->{device}\|(?!delivered|filtered)\w/m,
                            file => 'access.log'), "$status: no delivery");
    }

    my %raw = (
        'HTML' => "HTTP/1.1 503 No\r\nContent-Length: 13\r\n\r\n<html></html>",
        'garbage' => "garbage\r\n\r\n",
        'nothing but a line' => "HTTP/1.1 204 No Content\r\n",
        'truncated' => "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nshort",
        'truncated chunks' => "HTTP/1.1 200 OK\r\n"
            . "Transfer-Encoding: chunked\r\n\r\n5\r\nab",
        'old' => "ok",
        'interim only' => "HTTP/1.1 100 Continue\r\n\r\n",
        'redirect' => "HTTP/1.1 302 Found\r\nLocation: http://127.0.0.1/\r\n"
            . "Content-Length: 0\r\n\r\n",
        'accelerated' => "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n"
            . "X-Accel-Redirect: /fine\r\n\r\n",
        'large head' => "HTTP/1.1 204 No Content\r\nX: " . ('x' x 20000)
            . "\r\n\r\n",
    );

    for my $name (sort keys %raw) {
        my $answer = send_to('/', { op => 'send', raw => $raw{$name} });

        like($answer->{status}, qr/^50[34]$/, "$name: no success");
    }

    for my $rule ({ close => 'before' }, { close => 'request' },
                  { reset => JSON::PP::true }, { close => 'middle' })
    {
        my $answer = send_to('/', { op => 'send', %$rule });

        check(join(' ', %$rule), $answer, 503, 'unavailable');
    }

    my $answer = send_to('/ok', { op => 'send',
        raw => "HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n",
        keep => JSON::PP::true });

    is($answer->{status}, 200, '204 with a length is the hub\'s success');
    is($answer->{body}, '', 'no body');

    is(send_to('/ok', { op => 'send', oversize => 300_000,
                        status => 200 })->{status},
       200, 'a large answer is read to its end');
};


subtest 'deadline' => sub {
    my $device = 'hang';

    $hub->add($device);
    $hub->faults([{ op => 'send', device => $device, delay => 3000 }]);

    my $start = time;
    my $answer = $t->request('POST', '/slow', keepalive => 1,
                             body => "coreid=$device&event=e",
                             headers => { 'Content-Type' =>
                                 'application/x-www-form-urlencoded' });
    my $took = time - $start;

    check('hang', $answer, 504, 'timeout');
    ok($took >= 0.95 && $took < ($t->is_static ? 1.5 : 1.15),
       "on time: $took s");
    like($answer->{headers}{connection}, qr/close/,
         'the connection is not used again');

    ok($t->wait_for_log(qr/call ended after the deadline.*hub status: 204/),
       'what came later is in the log');

    $answer = $t->request('POST', '/slow', keepalive => 1,
                          body => 'coreid=dev-1&event=e',
                          headers => { 'Content-Type' =>
                              'application/x-www-form-urlencoded' });

    unlike($answer->{headers}{connection} // '', qr/close/,
           'otherwise it may be');
};


subtest 'log' => sub {
    $hub->faults([]);
    is($t->post('/', 'coreid=dev-1&event=e')->{status}, 204, 'delivered');

    ok($t->wait_for_log(qr/^dev-1\|delivered\|204\|-\|[\w-]+\|0\.\d{3}\|/m,
                        file => 'access.log'), 'in the access log');
    unlike($t->error_log(no_debug => 1), qr/SECRETDATA|HUBTEXT|SharedAccess/,
           'nothing of the hub or the event in the error log');
    like($t->error_log, qr/iothub event not delivered, hub: "contoso", device: (?x:
         )"dev-\d+", step: send, result: quota, hub status: 403, hub (?x:
         )error: "IotHubQuotaExceeded", hub request id: "[\w-]+", tries: 1/,
         'all of a failure in one line');
};

$t->done;
