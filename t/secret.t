#!/usr/bin/perl

# iothub_secret: who has it gets in, nobody else does, and the answer does not
# wait for the body.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use JSON::PP qw(decode_json);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

my @accepted = ('old secret: kept a while', 'n3w-S3cret=');

$t->write_file('particle.secret',
               "# rotated each month\n\n  $accepted[0]  \r\n$accepted[1]\n");
$t->write_file('other.secret', "the other one");

$hub->add('known');

$t->nginx(<<'CONF');

    %%IOTHUB%%

    iothub_secret header=X-Webhook-Secret file=particle.secret;

    server {
        listen 127.0.0.1:%%PORT_8080%%;

        location /inherited { iothub_pass contoso; }

        location /open {
            iothub_secret off;
            iothub_pass contoso;

            location /open/below { iothub_pass contoso; }
        }

        location /other {
            iothub_secret header=authorization file=other.secret;
            iothub_pass contoso;
        }

        location /rejected {
            iothub_rejected 200;
            iothub_pass contoso;
        }
    }

CONF

my $body = 'event=temp&coreid=known&data=21';


sub status {
    my ($uri, @headers) = @_;

    return $t->request(POST => $uri, body => $body, headers => [
        'Content-Type' => 'application/x-www-form-urlencoded', @headers,
    ])->{status};
}


# ---- who gets in

is(status('/inherited', 'X-Webhook-Secret' => $_), 204, "accepted: '$_'")
    for @accepted;

is(status('/inherited', $_ => $accepted[1]), 204, "header name $_")
    for 'x-webhook-secret', 'X-WEBHOOK-SECRET';

my @refused = (
    substr($accepted[1], 0, -1), "$accepted[1]x", lc $accepted[1], '',
    '# rotated each month', "$accepted[0] $accepted[1]", 'the other one',
    'n3w-S3cret%3D',
);

is(status('/inherited', 'X-Webhook-Secret' => $_), 401, "refused: '$_'")
    for @refused;

is(status('/inherited'), 401, 'refused without the header');
is(status('/inherited', 'X-Webhook-Secrets' => $accepted[1]), 401,
   'refused with another header');
is(status("/inherited?X-Webhook-Secret=$accepted[1]"), 401,
   'refused with the secret in the query');

is(status('/open'), 204, 'off lets everybody in');
is(status('/open/below'), 204, 'off is inherited');
is(status('/other', Authorization => 'the other one'), 204,
   'a secret of its own');
is(status('/other', 'X-Webhook-Secret' => $accepted[1]), 401,
   'a secret of its own replaces the inherited one');
is(status('/rejected'), 401, 'iothub_rejected does not hide a 401');

# one of several headers of the name is not enough if the first is wrong

is(status('/inherited', 'X-Webhook-Secret' => 'wrong',
          'X-Webhook-Secret' => $accepted[1]), 401,
   'the first header of the name counts');


# ---- the answer

my $answer = $t->post('/inherited', $body, 'X-Webhook-Secret' => 'wrong');

is($answer->{headers}{'content-type'}, 'application/problem+json',
   'a problem document');
is_deeply(decode_json($answer->{body}),
          { title => 'Sender not allowed', status => 401,
            code => 'unauthorized',
            detail => 'the secret is missing or wrong' }, 'what it says');
ok(!exists $answer->{headers}{'retry-after'}, 'no Retry-After');

is($t->request(DELETE => '/inherited')->{status}, 401,
   'the secret is asked for before the method is looked at');


# ---- before the body

my $head = "POST /inherited HTTP/1.1\r\nHost: localhost\r\n"
    . "Content-Type: application/json\r\nContent-Length: 100000\r\n";

for my $case (
    ['none of the body', "X-Webhook-Secret: wrong\r\n", ''],
    ['a part of the body', '', '{"event":'],
    ['Expect: 100-continue', "Expect: 100-continue\r\n", ''],
    ['chunks that never end', '', "5\r\n{\"eve\r\n"],
)
{
    my ($name, $more, $part) = @$case;

    my $start = $head;
    $start =~ s/Content-Length: \d+/Transfer-Encoding: chunked/
        if $name =~ /chunks/;

    my $r = $t->http("$start$more\r\n$part", timeout => 5);

    is($r->{status}, 401, "answered with $name");
    unlike($r->{raw}, qr/ 100 /, "no 100 Continue with $name");
}

my $r = $t->http("${head}X-Webhook-Secret: $accepted[1]\r\n\r\n{\"event\":",
                 timeout => 1);

is($r->{status}, 0, 'with the secret, the body is waited for');


# ---- what is told

my @sent = $hub->journal(op => 'send');

is(scalar @sent, 7, 'the hub got a message for each 204, and no more');

$t->stop;

my @warnings = $t->log_lines(qr/\[warn\].* iothub webhook unauthorized: /);

ok(@warnings > 10, 'each refusal is a warning');
ok((grep { /wrong value of header "x-webhook-secret"/ } @warnings),
   'a wrong secret is told from a missing one');
ok((grep { /no header "x-webhook-secret"/ } @warnings), 'and the other way');

# nginx adds the request line to an error, where a query is: not looked at

my $log = join '', grep { !/X-Webhook-Secret=/ }
    split /^/m, $t->error_log(no_debug => 1);

unlike($log, qr/\Q$_\E/, 'the log has no secret: ' . substr $_, 0, 3)
    for @accepted, 'the other one', grep { length > 8 } @refused;

$t->done;
