#!/usr/bin/perl

# iothub_signature: a webhook gets in only if a holder of the key signed it as
# it is, wherever its body lies, and nothing of another one is looked at.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Digest::SHA qw(hmac_sha256 hmac_sha256_base64 hmac_sha256_hex);
use JSON::PP qw(decode_json);
use MIME::Base64 qw(decode_base64 encode_base64);
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub(tls => 0);

my ($old, $key) = ('an old key, kept a while', 'n3w-K3y=');
my $whsec = encode_base64('0123456789abcdef01234567', '');


sub payload {
    my ($file) = @_;

    return decode_json($t->read_file("$FindBin::Bin/payloads/$file.json"));
}

my ($github, $stripe, $standard) =
    map { payload($_) } qw(github stripe standard-webhooks);

# nginx's workers read it, as the user they are
$t->write_file('users', "sender:{PLAIN}password\n", 0644);

my @keys = (
    $t->write_file('keys', "# rotated each month\n\n  $old \r\n$key\n"),
    $t->write_file('whsec', "whsec_$whsec\n"),
    $t->write_file('secret', "open sesame\n"),
    $t->write_file('github', $github->{auth}{test_vector}{secret}),
    $t->write_file('stripe', $stripe->{auth}{secret}),
    $t->write_file('svix', $standard->{auth}{secret_for_svix_vector}),
);

$hub->add('known');

$t->nginx(<<'CONF');

    %%IOTHUB%%

    log_format results '$uri $status $iothub_result $iothub_delivery_time';
    access_log %%TESTDIR%%/access.log results;

    client_max_body_size 2m;
    client_body_buffer_size 8k;

    iothub_field $product query:product;
    limit_req_zone $product zone=limited:128k rate=1r/m;
    limit_req_status 429;

    iothub_signature github file=keys;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        listen 127.0.0.1:%%PORT_8082%% http2;

        location /github { iothub_pass contoso; }

        location /other-header {
            iothub_signature github header=X-Gitea-Signature-256 file=keys;
            iothub_pass contoso;
        }

        location /file {
            client_body_in_file_only clean;
            iothub_pass contoso;
        }

        location /roomy {
            client_body_buffer_size 2m;
            iothub_pass contoso;
        }

        location /stripe {
            iothub_signature stripe file=keys;
            iothub_pass contoso;
        }

        location /patient {
            iothub_signature stripe file=keys tolerance=1h;
            iothub_pass contoso;
        }

        location /standard-webhooks {
            iothub_signature standard-webhooks file=whsec;
            iothub_pass contoso;
        }

        location /hex {
            iothub_signature hmac-sha256 header=X-Signature file=keys;
            iothub_pass contoso;
        }

        location /base64 {
            iothub_signature hmac-sha256 header=Authorization encoding=base64
                             "prefix=HMAC " file=keys;
            iothub_pass contoso;
        }

        location /both {
            iothub_secret header=X-Secret file=secret;
            iothub_pass contoso;
        }

        location /guarded {
            auth_basic guarded;
            auth_basic_user_file users;
            iothub_pass contoso;
        }

        location /denied {
            deny all;
            iothub_pass contoso;
        }

        location /limited {
            limit_req zone=limited;
            iothub_pass contoso;
        }

        location /off {
            iothub_secret off;
            iothub_pass contoso;
        }

        location /rejected {
            iothub_rejected 200;
            iothub_pass contoso;
        }

        location /cloudevents {
            iothub_source cloudevents;
            iothub_pass contoso;
        }

        location /eventgrid {
            iothub_source eventgrid;
            iothub_pass contoso;
        }

        location /vector {
            iothub_source custom;
            iothub_device_id known;
            iothub_pass contoso;

            location /vector/github {
                iothub_signature github file=github;
                iothub_pass contoso;
            }

            location /vector/stripe {
                iothub_signature stripe tolerance=60y file=stripe;
                iothub_pass contoso;
            }

            location /vector/svix {
                iothub_signature standard-webhooks header=Svix-Signature
                                 tolerance=60y file=svix;
                iothub_pass contoso;
            }
        }
    }

CONF

my $body = 'event=temp&coreid=known&data=21';


# How each scheme signs: SECRET, BODY, and TIME, the present if not told.

my %sign = (
    github => sub {
        return ('X-Hub-Signature-256',
                'sha256=' . hmac_sha256_hex($_[1], $_[0]));
    },

    stripe => sub {
        my $time = $_[2] // time;

        return ('Stripe-Signature',
                "t=$time,v1=" . hmac_sha256_hex("$time.$_[1]", $_[0]));
    },

    'standard-webhooks' => sub {
        my $time = $_[2] // time;
        my $mac = hmac_sha256_base64("msg_1.$time.$_[1]",
                                     decode_base64($_[0]));

        return ('webhook-id', 'msg_1', 'webhook-timestamp', $time,
                'webhook-signature', "v1,$mac=");
    },

    hex => sub { ('X-Signature', hmac_sha256_hex($_[1], $_[0])) },

    base64 => sub {
        return ('Authorization', 'HMAC ' . hmac_sha256_base64($_[1], $_[0])
                                 . '=');
    },
);

my %key_of = ('standard-webhooks' => $whsec);

my $form = 'application/x-www-form-urlencoded';


sub webhook {
    my ($uri, $what, @headers) = @_;

    return $t->request(POST => $uri, body => $what,
                       headers => ['Content-Type' => $form, @headers]);
}

sub status { return webhook(@_)->{status} }


# changed(TEXT): another byte in the middle, and nothing else

sub changed {
    my ($text, $at) = @_;

    $at //= int(length($text) / 2);
    substr($text, $at, 1) ^= "\x01";

    return $text;
}


# ---- each scheme

for my $scheme (sort keys %sign) {
    my $k = $key_of{$scheme} // $key;
    my $uri = "/$scheme";
    my @good = $sign{$scheme}->($k, $body);
    my @other = @good;

    is(status($uri, $body, @good), 204, "$scheme: good");
    is(status($uri, changed($body), @good), 401, "$scheme: another body");
    is(status($uri, "$body ", @good), 401, "$scheme: a longer body");
    is(status($uri, substr($body, 0, -1), @good), 401,
       "$scheme: a shorter body");

    $other[-1] = changed($good[-1], length($good[-1]) - 4);
    is(status($uri, $body, @other), 401, "$scheme: another signature");

    $other[-1] = substr $good[-1], 0, -1;
    is(status($uri, $body, @other), 401, "$scheme: a shorter signature");

    is(status($uri, $body, $sign{$scheme}->(encode_base64('wrong', ''),
                                            $body)),
       401, "$scheme: another key");
    is(status($uri, $body), 401, "$scheme: none");
    is(status($uri, $body, @good[0 .. $#good - 1], ''), 401,
       "$scheme: an empty one");
    like(status($uri, $body, @good, @good[-2, -1]),
         $good[-2] eq 'Authorization' ? qr/^400$/ : qr/^401$/,
         "$scheme: twice");
    is(status($uri, $body, @good[0 .. $#good - 2], "X-$good[-2]", $good[-1]),
       401, "$scheme: in another header");
}

is(status('/standard-webhooks', $body, @$_), 401,
   'standard-webhooks: each of its headers is needed, and signed')
    for map {
        my @h = $sign{'standard-webhooks'}->($whsec, $body);

        $_ eq 'id' ? [@h[2 .. 5]] : $_ eq 'time' ? [@h[0, 1, 4, 5]]
            : $_ eq 'other id' ? [$h[0], 'msg_2', @h[2 .. 5]]
            : $_ eq 'other time' ? [@h[0 .. 2], $h[3] + 1, @h[4, 5]]
            : [@h[0, 1, 0, 1], @h[2 .. 5]];
    } 'id', 'time', 'other id', 'other time', 'id twice';

is(status('/other-header', $body, 'X-Gitea-Signature-256',
          ($sign{github}->($key, $body))[1]), 204, 'header= of a scheme');
is(status('/other-header', $body, $sign{github}->($key, $body)), 401,
   'header= replaces that of the scheme');


# ---- time

for my $scheme (qw(stripe standard-webhooks)) {
    my $k = $key_of{$scheme} // $key;
    my $uri = "/$scheme";

    is(status($uri, $body, $sign{$scheme}->($k, $body, time + $_)), 204,
       "$scheme: $_ s off") for -240, 240;

    is(status($uri, $body, $sign{$scheme}->($k, $body, time + $_)), 401,
       "$scheme: $_ s off") for -400, 400, -time;
}

is(status('/patient', $body, $sign{stripe}->($key, $body, time + $_)), 204,
   "tolerance=1h: $_ s off") for -3500, 3500;
is(status('/patient', $body, $sign{stripe}->($key, $body, time + $_)), 401,
   "tolerance=1h: $_ s off") for -3700, 3700;


# ---- several keys, several signatures

is(status('/github', $body, $sign{github}->($_, $body)), 204,
   'a line of the file: ' . substr $_, 0, 3) for $old, $key;
is(status('/github', $body, $sign{github}->($_, $body)), 401,
   'no line of the file: ' . substr $_, 0, 3)
    for '# rotated each month', "$old ", '', lc $key;

my $now = time;
my ($good, $wrong) = map { hmac_sha256_hex("$now.$body", $_) } $key, 'wrong';

is(status('/stripe', $body, 'Stripe-Signature', "t=$now,$_"), 204,
   'stripe: one of several is enough')
    for "v1=$wrong,v1=$good", "v1=$good,v1=$wrong,v0=$wrong",
        "v0=$wrong,v1=$good";
is(status('/stripe', $body, 'Stripe-Signature', "t=$now,$_"), 401,
   'stripe: none of several')
    for "v1=$wrong,v1=$wrong", "v0=$good", "v1=$wrong,v0=$good",
        "v1=$good,t=$now", "v2=$good";

($good, $wrong) = map { hmac_sha256_base64("m.$now.$body", $_) . '=' }
    decode_base64($whsec), 'wrong';

is(status('/standard-webhooks', $body, 'webhook-id' => 'm',
          'webhook-timestamp' => $now, 'webhook-signature' => $_), 204,
   'standard-webhooks: one of several is enough')
    for "v1,$wrong v1,$good", "v1,$good v1a,$wrong", "v1a,$wrong v1,$good";
is(status('/standard-webhooks', $body, 'webhook-id' => 'm',
          'webhook-timestamp' => $now, 'webhook-signature' => $_), 401,
   'standard-webhooks: none of several')
    for "v1,$wrong v1,$wrong", "v1a,$good", "v1,$wrong v1a,$good";

# who could move the dot could sign another body

my $shifted = hmac_sha256_base64("m.$now.$now.x", decode_base64($whsec));

is(status('/standard-webhooks', $_->[1], 'webhook-id' => $_->[0],
          'webhook-timestamp' => $now, 'webhook-signature' => "v1,$shifted="),
   401, 'standard-webhooks: no dot in the id') for ["m.$now", 'x'];


# ---- bodies, wherever they lie

# nginx reads what fits into client_body_buffer_size into memory

for my $case (['/github', 1000], ['/github', 7000], ['/github', 100_000],
              ['/github', 1_000_000], ['/roomy', 100_000],
              ['/roomy', 1_000_000], ['/file', 200], ['/file', 131_072])
{
    my ($uri, $size) = @$case;
    my $large = "$body&more=";

    $large .= join '', map { sprintf '%07d.', $_ } 1 .. $size / 8;
    $large = substr $large, 0, $size;

    my @good = $sign{github}->($key, $large);
    my $name = "$size bytes to $uri";

    is(status($uri, $large, @good), 204, $name);
    is(status($uri, [unpack '(a1021)*', $large], @good), 204,
       "$name, chunked");
    is(status($uri, changed($large, $size - 1), @good), 401,
       "$name, another last byte");
    is(status($uri, [changed($large, 70), ' '], @good), 401,
       "$name, another early byte, chunked");

    next unless IoTHubTest->has_http2;

    for my $other (0, 1) {
        my $r = $t->http2(POST => $uri, port => $t->port(8082),
            body => $other ? changed($large) : $large,
            headers => ['Content-Type' => $form, Expect => '', @good]);

        is($r->{status}, $other ? 401 : 204,
           $name . ($other ? ', another byte' : '') . ', HTTP/2');
    }
}

my $in_pieces = "POST /github HTTP/1.1\r\nHost: a\r\nContent-Type: $form\r\n"
    . 'Content-Length: ' . length($body) . "\r\nConnection: close\r\n"
    . join(': ', $sign{github}->($key, $body)) . "\r\n\r\n";

is($t->http([$in_pieces . substr($body, 0, 5), substr($body, 5, 9),
             substr $body, 14])->{status}, 204, 'a body that comes in pieces');

# a method without a body signs no bytes

my ($name, $empty) = $sign{github}->($key, '');

is($t->get("/github?$body", $name => $empty)->{status}, 204, 'GET');
is($t->get("/github?$body", $name => changed($empty))->{status}, 401,
   'GET with another signature');
is($t->get("/github?$body")->{status}, 401, 'GET without one');


# ---- before anything is parsed

my $malformed = '{"event":';

is($t->post('/github', $malformed, $name => $empty)->{status}, 401,
   'malformed and wrong: 401');
is($t->post('/github', $malformed)->{status}, 401, 'malformed and none: 401');
is($t->post('/github', $malformed, $sign{github}->($key, $malformed))
    ->{status}, 400, 'malformed and good: 400');
is($t->post('/github', $body, 'Content-Type' => 'image/png',
            $name => $empty)->{status}, 401,
   'another media type and wrong: 401');
is($t->request(DELETE => '/github')->{status}, 401,
   'asked for before the method is looked at');
is(status('/rejected', $body, $name => $empty), 401,
   'iothub_rejected does not hide it');

my $head = "POST /github HTTP/1.1\r\nHost: localhost\r\n"
    . "Content-Type: application/json\r\nContent-Length: 100000\r\n";

for my $case (
    ['no signature', ''],
    ['Expect: 100-continue', "Expect: 100-continue\r\n"],
    ['no signature that could be one', "X-Hub-Signature-256: sha256=0\r\n"],
)
{
    my $r = $t->http("$head$case->[1]\r\n{\"ev", timeout => 5);

    is($r->{status}, 401, "answered before the body: $case->[0]");
    unlike($r->{raw}, qr/ 100 /, '... and without asking for it');
}


# ---- together with iothub_secret, and handshakes

my @signed = $sign{github}->($key, $body);

is(status('/both', $body, @$_[1 .. $#$_]), $_->[0], "both: $_->[0]")
    for [204, @signed, 'X-Secret' => 'open sesame'],
        [401, @signed, 'X-Secret' => 'sesame'], [401, @signed],
        [401, 'X-Secret' => 'open sesame'],
        [401, $name => $empty, 'X-Secret' => 'open sesame'];

my $basic = 'Basic ' . encode_base64('sender:password', '');

is(status("/guarded", $body, @$_[1 .. $#$_]), $_->[0], "auth_basic: $_->[0]")
    for [204, @signed, Authorization => $basic], [401, @signed],
        [401, Authorization => $basic],
        [401, @signed, Authorization => 'Basic eDp4'];

is(status('/denied', $body, @signed), 403, 'deny');

is(status('/limited?product=1', $body, @signed), 204, 'limit_req: the first');
is(status('/limited?product=1', $body, @signed), 429, '... the second');
is(status('/limited?product=2', $body, @signed), 204, '... of another');
is(status('/limited?product=3', $body), 401, '... without a signature');
is(status('/limited?product=3', $body, @signed), 429, '... counts too');

is(status('/off', $body, @signed), 204, 'iothub_secret off: good');
is(status('/off', $body), 401, 'iothub_secret off: the signature counts');

my %asking = ('WebHook-Request-Origin' => 'events.example.com');

my $r = $t->request(OPTIONS => '/cloudevents',
                    headers => { %asking, $name => $empty });

is($r->{status}, 200, 'OPTIONS, signed');
is($r->{headers}{'webhook-allowed-origin'}, 'events.example.com',
   '... may send');

for my $more ([], [$name => changed($empty)]) {
    $r = $t->request(OPTIONS => '/cloudevents', headers => { %asking,
                                                             @$more });
    is($r->{status}, 401, 'OPTIONS, not signed');
    ok(!exists $r->{headers}{'webhook-allowed-origin'}, '... may not send');
}

my $validation = '[{"id":"1","eventType":'
    . '"Microsoft.EventGrid.SubscriptionValidationEvent",'
    . '"data":{"validationCode":"512d38b6"}}]';

$r = $t->post('/eventgrid', $validation, $sign{github}->($key, $validation));

is($r->{status}, 200, 'validation, signed');
is_deeply(decode_json($r->{body}), { validationResponse => '512d38b6' },
          '... is confirmed');

$r = $t->post('/eventgrid', $validation, $name => $empty);

is($r->{status}, 401, 'validation, not signed');
unlike($r->{body}, qr/512d38b6/, '... is not confirmed');


# ---- the answer

$r = webhook('/github', $body, $name => $empty);

is($r->{headers}{'content-type'}, 'application/problem+json',
   'a problem document');
is_deeply(decode_json($r->{body}),
          { title => 'Sender not allowed', status => 401,
            code => 'unauthorized',
            detail => 'the signature is missing, wrong or too old' },
          'what it says');
ok(!exists $r->{headers}{'retry-after'}, 'no Retry-After');


# ---- what senders have published

sub vector {
    my ($name, $what, @headers) = @_;

    is(status("/vector/$name", $what, @headers), 204, "$name: the vector");
    is(status("/vector/$name", changed($what), @headers), 401,
       "$name: another body");

    $headers[-1] = changed($headers[-1], -2);
    is(status("/vector/$name", $what, @headers), 401,
       "$name: another signature");
}

vector('github', $github->{auth}{test_vector}{payload},
       'X-Hub-Signature-256' => $github->{auth}{test_vector}{header});

vector('stripe', $stripe->{requests}[0]{body_raw},
       'Stripe-Signature' => $stripe->{auth}{test_vector});

my ($svix) = grep { $_->{headers}{'svix-id'} } @{ $standard->{requests} };

vector('svix', $svix->{body_raw},
       map { $_ => $svix->{headers}{$_} }
           qw(svix-id svix-timestamp svix-signature));


# ---- what is told

my $delivered = grep { / 204 delivered / } split /^/m, $t->access_log;

is(scalar $hub->journal(op => 'send'), $delivered,
   'the hub got a message for each 204, and no more');

$t->stop;

my @warnings = $t->log_lines(qr/\[warn\].* iothub webhook unauthorized: /);

for my $said (
    'no header "x-hub-signature-256"', 'no header "webhook-id"',
    'no signature in header "x-hub-signature-256"',
    'wrong signature in header "x-hub-signature-256"',
    'wrong signature in header "authorization"',
    'more than one header "stripe-signature"',
    'more than one header "webhook-id"',
    'two times in header "stripe-signature"', 'a dot in header "webhook-id"',
    qr/time 40\d s old in header "stripe-signature"/,
    qr/time (?:400|39\d) s ahead in header "webhook-timestamp"/,
    'wrong value of header "x-secret"',
)
{
    ok((grep { /unauthorized: \Q$said\E/
               || ref $said && /unauthorized: $said/ } @warnings),
       "told: $said");
}

my @refused = grep { / 401 unauth/ } split /^/m, $t->access_log;

is(scalar @warnings, scalar @refused, 'each refusal is one warning');
is(scalar(grep { / 401 unauthorized -$/ } @refused), scalar @refused,
   '... and told by $iothub_result');
is(scalar(grep { / not delivered.* result: unauthorized/ }
          split /^/m, $t->error_log), 0, '... and no error');

my $log = $t->error_log(no_debug => 1);

unlike($log, qr/\Q$_\E/, 'the log has no secret: ' . substr $_, 0, 5)
    for $old, $key, $whsec, 'open sesame', $signed[1], $good, $wrong, $empty,
        map { my $text = $t->read_file($_); $text =~ s/\s+\z//; $text }
            grep { /github|stripe|svix/ } @keys;


# ---- nginx -t

sub says {
    my ($arguments, $message, %o) = @_;

    my ($exit, $output) = $t->nginx_t(<<"CONF");

    %%IOTHUB%%

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        location / {
            iothub_pass contoso;
            iothub_signature $arguments;
@{[ $o{more} // '' ]}
        }
    }

CONF
    my $line = 8 + ($o{later} // 0);

    like($output, qr/\[emerg\] .*$message in \S+:$line\n/,
         "refused: $arguments") or return;
    isnt($exit, 0, '... by nginx -t');
}

my $names = 'write github, stripe, standard-webhooks or hmac-sha256';

says(@$_) for
    ['github', 'invalid number of arguments in "iothub_signature" directive'],
    ['off file=keys', "unknown scheme \"off\", $names"],
    ['GitHub file=keys', "unknown scheme \"GitHub\", $names"],
    ['github header=X', 'directive needs "file=FILE"'],
    ['github file=', 'directive needs "file=FILE"'],
    ['github file=keys file=keys', 'invalid parameter "file=keys": write .*'],
    ['github file=keys header=A header=B',
     'invalid parameter "header=B": write .*'],
    ['github file=keys on', 'invalid parameter "on": write .*'],
    ['github file=keys header=', 'parameter "header=": no header has such a '
                                 . 'name'],
    ['github file=keys header=X:', 'parameter "header=X:": no header has such '
                                   . 'a name'],
    ['github file=keys prefix=a', 'parameter "prefix=a": the scheme says what '
     . 'stands before a signature; only "hmac-sha256" takes another'],
    ['stripe file=keys encoding=base64', 'parameter "encoding=base64": the '
     . 'scheme says how a signature is written; only "hmac-sha256" takes '
     . 'another'],
    ['github file=keys tolerance=5m', 'parameter "tolerance=5m": the scheme '
     . 'signs no time; "stripe" and "standard-webhooks" do'],
    ['hmac-sha256 header=X file=keys tolerance=5m', 'parameter "tolerance=5m"'
     . ': the scheme signs no time; .*'],
    ['stripe file=keys tolerance=0', 'parameter "tolerance=0": write a time '
     . 'that is longer than nothing, such as "tolerance=5m"'],
    ['stripe file=keys tolerance=x', 'parameter "tolerance=x": write a time '
                                     . '.*'],
    ['hmac-sha256 file=keys', 'directive needs "header=NAME" with this '
                              . 'scheme'],
    ['hmac-sha256 header=X file=keys encoding=utf-8', 'parameter '
     . '"encoding=utf-8": write "encoding=hex" or "encoding=base64"'],
    ['hmac-sha256 header=X file=keys "prefix= x"', 'parameter "prefix= x": it '
     . 'must not start with a blank or a comma, which stand between '
     . 'signatures'],
    ['standard-webhooks header=X-Sig file=whsec', 'parameter '
     . '"header=[xX]-[sS]ig": its name must end in "-signature", for the '
     . 'headers of the id and the time'],
    ['standard-webhooks file=keys', 'keys", line 3: not base64 after "whsec_",'
                                    . ' copy the secret whole'],
    ['github file=nowhere', 'nowhere" failed \(2: No such file or directory\)'],
    ['github file=' . $t->write_file('none', "# none\n"),
     'none": no secret in it, write one a line'],
    ['github file=' . $t->write_file('nul', "a\nb\0\n"),
     'nul", line 2: a control character, write plain text'],
    ['github file=keys', '"iothub_signature" directive is duplicate',
     more => 'iothub_signature stripe file=keys;', later => 1];

# nor is a key there, and the door is no open one

my ($exit, $output) = $t->nginx_t(<<'CONF');

    %%IOTHUB%%

    iothub_signature github file=keys;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        location / { iothub_pass contoso; }
    }

CONF

is($exit, 0, 'nginx -t with a signature');
unlike($output, qr/\[warn\]/, '... has nothing to warn of');

($exit, $output) = $t->nginx_t(<<'CONF', dump => 1);

    %%IOTHUB%%

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        location /a { iothub_pass contoso; }
        location /b {
            iothub_signature hmac-sha256 header=X file=keys;
            iothub_pass contoso;
        }
    }

CONF

like($output, qr/add iothub_secret or iothub_signature, or "iothub_secret/,
     'an open door is warned of');
is(() = $output =~ /\[warn\]/g, 1, '... once');
unlike($output, qr/\Q$key\E|\Q$old\E/, 'nginx -T shows no key');

$t->done;
