#!/usr/bin/perl

# iothub_target: the existing target gets, byte for byte, what a plain
# proxy_pass would send it, whenever the outcome and "after" or "always" say
# so; its answer is the sender's, and no hub and no webhook can change that.

use strict;
use warnings;

use Digest::SHA qw(hmac_sha256_hex);
use FindBin;
use lib "$FindBin::Bin/lib";
use IO::Select;
use IO::Socket::INET;
use JSON::PP qw(decode_json);
use List::Util qw(min);
use Test::More;
use Time::HiRes qw(sleep time);
use IoTHubTest;
use IoTHubTest::HTTP qw(compose);
use IoTHubTest::HTTP2;
use IoTHubTest::Recorder;

my $t = IoTHubTest->new(allow => [qr/lacks the right|refuses every key/]);
my $hub = $t->hub(tls => 0);
my $fabrikam = $t->hub(name => 'fabrikam', tls => 0);
my $bad = $t->hub(name => 'bad', tls => 0);
my $old = IoTHubTest::Recorder->start($t, 'old');

$bad->policies({ other => { primary => ($hub->keys)[0] } });

my $form = 'application/x-www-form-urlencoded';

$t->write_file('hook.secret', "sesame\n");

# a hub that is not there, and one of the test's own
my $others = join "\n", map { "iothub $_->[0] { hostname $_->[0].example.com; "
    . "address 127.0.0.1:%%PORT_$_->[1]%%; tls off; policy p; "
    . 'key_file %%KEY%%; }' } ['down', 'nobody'], ['slow', 'slowhub'];

my $conf = join("\n", $hub->block('register missing rate=off; '
                                . 'proxy_read_timeout 3s;'),
                $bad->block, $fabrikam->block('register missing rate=off;'),
                $others) . <<'CONF';

    iothub_secret off;
    client_max_body_size 2m;

    log_format target '$request_uri $status $iothub_result '
                      '$iothub_device_id $upstream_status '
                      '$iothub_hub_status';
    access_log %%TESTDIR%%/access.log target;

    map $iothub_event $found { default ""; ok contoso; }
    iothub_field $kind json:/kind form:kind;
    iothub_field $verbatim form:data raw;

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        listen 127.0.0.1:%%PORT_h2%% http2;

        iothub_target @old;

        location /after { iothub_pass contoso; }

        location /always {
            iothub_deadline 15s;
            iothub_pass contoso;
            iothub_target @old always;
        }

        location /filtered { iothub_filter 0; iothub_pass contoso; }

        location /any {
            iothub_source custom;
            iothub_device_id any;
            iothub_pass contoso;
        }

        # other ways to keep the body, and to send it on

        location /file {
            client_body_buffer_size 1k;
            iothub_pass contoso;
            iothub_target @old always;
        }

        location /only {
            client_body_in_file_only clean;
            iothub_pass contoso;
            iothub_target @old always;
        }

        location /v11 { iothub_pass contoso; iothub_target @v11 always; }

        location /stream {
            iothub_pass contoso;
            iothub_target @stream always;
        }

        location @old {
            proxy_set_header X-IoTHub-Result $iothub_result;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        location @v11 {
            proxy_http_version 1.1;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        location @stream {
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        # outcomes

        location /short/ {
            iothub_deadline 700ms;

            location /short/after { iothub_pass contoso; }

            location /short/always {
                iothub_pass contoso;
                iothub_target @old always;
            }

            location /short/down {
                iothub_pass down;
                iothub_target @old always;
            }

            location /short/down/after { iothub_pass down; }

            location /short/bad {
                iothub_pass bad;
                iothub_target @old always;
            }

            location /short/bad/after { iothub_pass bad; }

            location /short/found {
                iothub_pass $found;
                iothub_target @old always;
            }

            location /short/found/after { iothub_pass $found; }

            location /short/fabrikam {
                iothub_pass fabrikam;
                iothub_target @old always;
            }

            location /short/fabrikam/after { iothub_pass fabrikam; }

            location /short/delayed {
                iothub_pass slow;
                iothub_target @delayed always;
            }

            location /short/patient {
                iothub_pass contoso;
                iothub_target @patient always;
            }

            location /short/slow {
                iothub_pass slow;
                iothub_target @slow always;
            }
        }

        location @delayed {
            limit_req zone=delayed burst=9;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        location @patient {
            proxy_ignore_client_abort on;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        location @slow {
            limit_rate 4k;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        location /never {
            iothub_secret header=X-Secret file=%%TESTDIR%%/hook.secret;
            iothub_pass contoso;
            iothub_target @old always;
        }

        location /signed {
            iothub_signature github file=%%TESTDIR%%/hook.secret;
            iothub_pass contoso;
            iothub_target @old always;
        }

        location /each {
            iothub_each json:/list;
            iothub_deadline 1500ms;

            location /each/after { iothub_pass contoso; }

            location /each/always {
                iothub_pass contoso;
                iothub_target @old always;
            }
        }

        # a variable that is read too early

        location /early {
            set $early $iothub_result;
            iothub_pass contoso;
            iothub_target @v11 always;
        }

        # asked by a subrequest

        location /mirrored {
            mirror /copy;
            proxy_pass http://127.0.0.1:%%PORT_8080%%/return;
        }

        location /copy { iothub_pass contoso; iothub_target @old; }

        # targets of other kinds

        location /return { iothub_pass contoso; iothub_target @return; }
        location @return {
            return 200 "$iothub_result $iothub_device_id $kind";
        }

        location /uri { iothub_pass contoso; iothub_target "/new x"; }
        location /args {
            iothub_pass contoso;
            iothub_target "/new x?b=2";
        }
        location /none { iothub_pass contoso; iothub_target "/new x?"; }
        location /new { proxy_pass http://127.0.0.1:%%PORT_old%%; }

        location /denied { iothub_pass contoso; iothub_target /closed; }
        location /closed {
            deny all;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        location /fallback { iothub_pass contoso; iothub_target @gone; }
        location @gone {
            proxy_pass http://127.0.0.1:%%PORT_nobody%%;
            error_page 502 = @old;
        }

        location /off { iothub_pass contoso; iothub_target off; }

        location /found {
            error_page 404 /after/found;
            return 404;
        }

        location /if {
            if ($arg_hub) { iothub_pass contoso; }
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        location /limited {
            proxy_pass http://127.0.0.1:%%PORT_old%%;
            limit_except GET { iothub_pass contoso; }
        }

        # from one hub on to another, and in circles, which nginx -t does not
        # see where a "set" might make another way

        location /first { iothub_pass contoso; iothub_target /second; }
        location /second { iothub_pass fabrikam; iothub_target off; }

        location /circle {
            set $way 1;
            iothub_pass contoso;
            iothub_target /circle;
        }
        location /around {
            set $way 1;
            iothub_pass contoso;
            iothub_target /about always;
        }
        location /about {
            iothub_pass contoso;
            iothub_target /around always;
        }

        # headers

        location /headers { iothub_pass contoso; iothub_target @headers; }
        location @headers {
            proxy_set_header X-Device $iothub_device_id;
            proxy_set_header X-Data $iothub_data;
            proxy_set_header X-Body $iothub_body;
            proxy_set_header X-Message $iothub_message;
            proxy_set_header X-Kind $kind;
            proxy_set_body $verbatim;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        # OPTIONS is not the target's business, or is

        location /events {
            iothub_source cloudevents;
            iothub_pass contoso;
        }

        location /events/always {
            iothub_source cloudevents;
            iothub_pass contoso;
            iothub_target @old always;
        }
    }

    limit_req_zone $host zone=delayed:64k rate=1r/s;

    # without the gateway

    server {
        listen 127.0.0.1:%%PORT_plain%%;
        listen 127.0.0.1:%%PORT_plainh2%% http2;

        location / { proxy_pass http://127.0.0.1:%%PORT_old%%; }

        location /v11 {
            proxy_http_version 1.1;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }

        location /stream {
            proxy_http_version 1.1;
            proxy_request_buffering off;
            proxy_pass http://127.0.0.1:%%PORT_old%%;
        }
    }

CONF

$t->nginx($conf);

my @workers = $t->worker_pids;


# sends a webhook with the gateway in front of the target and without, and
# returns the answers and what the target got

sub both {
    my ($method, $uri, %o) = @_;

    my @answers = map {
        $t->request($method, $uri, %o, port => $t->port($_))
    } 8080, 'plain';

    # which one came first does not matter if they are the same
    my @got = $old->take(2);

    return (\@answers, \@got);
}


sub same {
    my ($name, $method, $uri, %o) = @_;

    my ($answers, $got) = both($method, $uri, %o);

    # the one header that the gateway is told to add
    my @raw = map { $_->{raw} =~ s/^X-IoTHub-Result: .*\r\n//mir } @$got;

    ok(@raw == 2 && $raw[0] eq $raw[1], "$name: the same bytes")
        or diag join "\n---\n", map { substr $_, 0, 800 } @raw;

    my @body = map { ref $_ ? join '', @$_ : $_ // '' } $o{body};

    is(length(($raw[0] // '') =~ s/.*?\r\n\r\n//sr), length $body[0],
       "$name: the whole body");
    is($answers->[0]{body}, $answers->[1]{body}, "$name: the same answer");
    is($answers->[0]{status}, 200, "$name: the target's status");
}


# ---- the same bytes

sub bytes {
    my ($kind, $size) = @_;

    return '' unless $size;

    my ($start, $end, $fill) = @{ {
        form => ['event=e&coreid=d1&data=', '', '+%2b'],
        json => ['{"event":"e", "coreid":"d1","data": "', "\"}\r\n", '\\u00e9'],
        binary => ["\xff\0\r\n\r\n0\r\n\r\n", "\r\n",
                   join '', map { chr } 0 .. 255],
    }->{$kind} };

    my $n = int(($size - length $start . $end) / length $fill);
    my $rest = $size - length($start . $end) - $n * length $fill;

    return $start . $fill x $n . '.' x $rest . $end;
}


my %type = (form => $form, json => 'application/json',
            binary => 'application/octet-stream');

# repeats, an order, odd cases: all that could be lost
sub headers {
    my ($kind) = @_;

    return [
        Host => 'hooks.example.com', 'Content-Type' => $type{$kind},
        'x-b' => '2', 'X-A' => '1', 'x-B' => 'two', 'Cookie' => 'a=b; c="d e"',
        'Authorization' => 'Bearer x.y', 'User-Agent' => "ua\t(1)",
        'X-Forwarded-For' => '10.0.0.1', 'Accept' => '*/*',
        'X-Long' => 'l' x 2000, 'TE' => 'trailers', 'If-Match' => '"a"',
    ];
}


subtest 'what the target gets is what it would have got' => sub {
    for my $size (0, 1 << 10, 100 << 10, 1 << 20) {
        for my $kind (qw(form json binary)) {
            my $body = bytes($kind, $size);

            is(length $body, $size, "$kind of $size bytes");

            for my $uri ('/always', '/filtered', '/file', '/only', '/v11') {

                # only what is understood can be filtered
                next if $uri eq '/filtered'
                    && ($kind eq 'binary' || $kind eq 'json' && !$size);

                same("$uri, $kind, $size", POST => "$uri/%7e/a%2Fb?q=%20&q=",
                     headers => headers($kind), body => $body);
            }

            # and what the hub accepts
            same("/any, $kind, $size", POST => '/any?x', body => $body,
                 headers => headers($kind))
                if $size <= 100 << 10 && ($size || $kind ne 'json');
        }
    }

    is(scalar(grep { $_->{body} eq bytes('binary', 100 << 10) }
              $hub->messages(device => 'any')), 1,
       'the hub has the binary one, too');
};


subtest 'chunked bodies, and in pieces' => sub {
    for my $size (0, 1 << 10, 100 << 10, 1 << 20) {
        my $body = bytes('json', $size);
        my @chunks = $body =~ /(.{1,7000})/gs;

        for my $uri ('/always', '/file', '/only') {
            same("$uri, $size chunked", POST => $uri, body => \@chunks,
                 headers => headers('json'));
        }
    }

    # what is not read before it is sent on goes on as it came; the gateway
    # has read it

    my $raw = compose(POST => '/stream', headers => headers('json'),
                      body => ['{"coreid":"d1",', '"event":"e"}']);

    for my $port (8080, 'plain') {
        $t->http([$raw =~ /\A(.*?\r\n\r\n)(.*)\z/s], pause => 0.1,
                 port => $t->port($port));

        my $got = $old->take;

        is($got->{headers}{$port eq 'plain' ? 'transfer-encoding'
                                            : 'content-length'},
           $port eq 'plain' ? 'chunked' : 27,
           "proxy_request_buffering off, $port");
    }

    same('/stream', POST => '/stream', headers => headers('json'),
         body => bytes('json', 100 << 10));

    $raw = compose(POST => '/always', body => bytes('form', 5000),
                   headers => headers('form'));

    $t->http([$raw =~ /(.{1,1500})/gs], pause => 0.02, port => $t->port($_))
        for 8080, 'plain';

    my @got = map { $_->{raw} =~ s/^X-IoTHub-Result: .*\r\n//mir }
        $old->take(2);

    is($got[0], $got[1], 'in pieces');
};


subtest 'methods' => sub {
    same("$_", $_ => '/always?coreid=d1&event=e', headers => headers('form'),
         (/GET|DELETE|HEAD|FOO/ ? () : (body => 'coreid=d1&event=e')))
        for qw(GET PUT POST DELETE PATCH FOO);

    same('GET with a body', GET => '/always', body => 'coreid=d1&event=e',
         headers => headers('form'));
    same('POST without a body', POST => '/always?coreid=d1',
         headers => headers('form'));
    same('HTTP/1.0', POST => '/always', version => '1.0',
         headers => headers('form'), body => 'coreid=d1&event=e');
    same('with Expect', POST => '/always', body => 'coreid=d1&event=e',
         headers => [@{ headers('form') }, Expect => '100-continue']);
    same('DELETE with Expect', DELETE => '/always', body => 'x=y',
         headers => [@{ headers('form') }, Expect => '100-continue']);
    same('compressed', POST => '/always', body => "\x1f\x8b\b\0\0",
         headers => [@{ headers('form') }, 'Content-Encoding' => 'gzip']);

    my ($answers) = both(HEAD => '/always');
    is($answers->[0]{status}, 200, 'HEAD');
};


subtest 'HTTP/2' => sub {
    plan skip_all => 'curl has no HTTP/2' unless $t->has_http2;

    for my $size (0, 1 << 10, 100 << 10, 1 << 20) {
        my $body = bytes('json', $size);

        my @a = map {
            $t->http2(POST => '/always?q', body => $body, port => $t->port($_),
                headers => [Host => 'hooks.example.com', 'X-A' => 1,
                            'Content-Type' => 'application/json'])
        } 'h2', 'plainh2';

        my @got = map { $_->{raw} =~ s/^X-IoTHub-Result: .*\r\n//mir }
            $old->take(2);

        is($a[0]{status}, 200, "$size: answered");
        ok($got[0] eq $got[1], "$size: the same bytes");
        is($a[0]{body}, $a[1]{body}, "$size: the same answer");
    }
};


# ---- when

$hub->add(qw(disabled known));
$hub->disable('disabled');

my @faults = (
    { op => 'send', device => 'refused', status => 400 },
    { op => 'send', device => 'broken', status => 500 },
    { op => 'send', device => 'wrong', status => 405 },
    { op => 'send', device_re => '^hangs', hang => 1 },
    { op => 'send', device_re => '^late', delay => 1300 },
);


sub webhook { return "event=ok&coreid=$_[0]&data=1" }


# of all results: a webhook that makes it, what it is answered with "after"

my @outcomes = (
    [delivered => POST => webhook('known'), undef],
    [rejected => POST => 'event=ok', 422],
    [malformed => POST => 'a=%zz', 400],
    [malformed => POST => '{"coreid":', 400, 'Content-Type' =>
        'application/json'],
    [unsupported_media_type => POST => 'x', 415, 'Content-Type' =>
        'text/plain'],
    [unsupported_media_type => POST => webhook('known'), 415,
        'Content-Encoding' => 'br'],
    [method_not_allowed => DELETE => webhook('known'), 405],
    [too_large => POST => webhook('known') . 'x' x 300000, 413],
    [blocked => POST => webhook('disabled'), 422],
    [refused => POST => webhook('refused'), 422],
    [misconfigured => POST => webhook('wrong'), 503],
    [unavailable => POST => webhook('broken'), 503],
    [timeout => POST => webhook("late"), 504],
);

my @elsewhere = (
    [unavailable => POST => webhook('known'), 503, 'down'],
    [credentials => POST => webhook('known'), 503, 'bad'],
    [misconfigured => POST => 'event=lost&coreid=known', 503, 'found'],
);


sub outcome {
    my ($uri, $word, $method, $body, $code, %headers) = @_;

    my %o = (body => $body, headers => { 'Content-Type' => $form, %headers });
    my $what = "$word, $method " . substr($body, 0, 24);

    $old->answer(status => 299, body => 'of the target');

    my ($always, $after) = map { "$uri/$_?" . ++$main::n } qw(always after);

    $always = "$uri?" . $main::n if $uri =~ /down|bad|found/;

    my $r = $t->request($method, $always, %o);
    my $got = $old->take;

    is($r->{status}, 299, "always: $what: the target's status");
    is($r->{body}, 'of the target', "always: $what: the target's body");
    is($got->{headers}{'x-iothub-result'}, $word,
       "always: $what: the target knows");
    is($got->{body}, $body, "always: $what: the webhook");
    ok($t->wait_for_log(qr{^\Q$always\E 299 $word \S+ 299 },
                        file => 'access.log'), "always: $what: the log");

    $r = $t->request($method, $after, %o);

    if (!defined $code) {
        is($r->{status}, 299, "after: $what: the target's status");
        is($old->take->{headers}{'x-iothub-result'}, $word,
           "after: $what: the target knows");
        return;
    }

    is($r->{status}, $code, "after: $what: the module's status");
    is(eval { decode_json($r->{body})->{code} }, $word,
       "after: $what: the module's answer");
    ok($t->wait_for_log(qr{^\Q$after\E $code $word \S+ - },
                        file => 'access.log'), "after: $what: the log");
    is(scalar $old->requests, 0, "after: $what: the target is not asked");
}


subtest 'outcomes' => sub {
    $hub->faults(\@faults);

    outcome('/short', @$_) for @outcomes;
    outcome("/short/$_->[4]", @$_[0 .. 3]) for @elsewhere;

    is($t->post('/filtered?f', webhook('known'))->{status}, 299, 'filtered');
    is($old->take->{headers}{'x-iothub-result'}, 'filtered',
       'filtered: the target knows');
    ok($t->wait_for_log(qr{^/filtered\?f 299 filtered known 299 -$},
                        file => 'access.log'), 'filtered: the log');

    # what closes a gate, at the end and at another hub
    $hub->faults([{ op => 'send', status => 403, code => 403002,
                    error => 'IotHubQuotaExceeded' }]);
    $fabrikam->faults([{ op => 'send', status => 429, retry_after => 2 }]);

    for (['/short', 'quota'], ['/short/fabrikam', 'throttled']) {
        my ($uri, $word) = @$_;

        is($t->post("$uri/always", webhook('known'))->{status}, 299, $word);
        is($old->take->{headers}{'x-iothub-result'}, $word,
           "$word: the target knows");
        is($t->post("$uri/after", webhook('known'))->{status}, 503,
           "$word: after");
        is(scalar $old->requests, 0, "$word: the target is not asked");
    }

    $hub->faults([]);
    $fabrikam->faults([]);
    $old->answer;

    # what the quota has closed
    $t->stop;
    $t->nginx($conf);
};


subtest 'unauthorized webhooks never go on' => sub {
    for my $secret (undef, 'open', 'sesam', '') {
        my $r = $t->post('/never', webhook('known'),
                         defined $secret ? ('X-Secret' => $secret) : ());

        is($r->{status}, 401, defined $secret ? "\"$secret\"" : 'none');
    }

    is($t->request(DELETE => '/never')->{status}, 401, 'by another method');
    is(scalar $old->requests, 0, 'the target saw nothing');

    is($t->post('/never', webhook('known'), 'X-Secret' => 'sesame')->{status},
       200, 'with the secret, they do');
    is($old->take->{headers}{'x-secret'}, 'sesame', 'with all headers');
};


subtest 'unsigned webhooks never go on' => sub {
    my $body = webhook('known');
    my %good = ('X-Hub-Signature-256' =>
                'sha256=' . hmac_sha256_hex($body, 'sesame'));
    my %bad = ('X-Hub-Signature-256' =>
               'sha256=' . hmac_sha256_hex($body, 'open'));

    # what would be told from the head alone, too
    for my $how ([POST => ()], [DELETE => ()],
                 [POST => ('Content-Encoding' => 'gzip')])
    {
        my ($method, @more) = @$how;
        my $what = join ' ', $method, @more;

        my $send = sub {
            $t->request($method => '/signed', body => $body, headers =>
                        { 'Content-Type' => $form, @more, @_ })->{status};
        };

        is($send->(%bad), 401, "$what: wrong");
        is($send->(), 401, "$what: none");
        is(scalar $old->requests, 0, "$what: the target saw nothing");
        is($send->(%good), 200, "$what: right");
        is($old->take->{body}, $body, "$what: the target's");
    }
};


subtest 'several events' => sub {
    my $list = sub {
        return '{"list": [' . join(', ', map { qq({"event":"e","coreid":"$_"}) }
                                   @_) . ']}';
    };

    $hub->add(qw(e1 e2 e3));
    $hub->faults([{ op => 'send|batch', device => 'e-bad', status => 400 },
                  { op => 'send|batch', device_re => '^e-hang', hang => 1 }]);

    for (['delivered', 200, $list->(qw(e1 e2 e1 e3))],
         ['refused', 422, $list->(qw(e1 e-bad e2))],
         ['rejected', 422, '{"coreid":"e1"}'],
         ['timeout', 504, $list->(qw(e1 e-hang1 e2 e-hang2 e-hang3))])
    {
        my ($word, $code, $body) = @$_;

        is($t->post('/each/after', $body)->{status}, $code, "after: $word");
        is($old->take->{body}, $body, "after: $word: the webhook")
            if $code == 200;

        is($t->post('/each/always', $body)->{status}, 200, "always: $word");

        my $got = $old->take;

        is($got->{headers}{'x-iothub-result'}, $word, "always: $word: known");
        is($got->{body}, $body, "always: $word: the webhook");
    }

    $hub->faults([]);
};


# ---- hub calls that go on after the deadline

subtest 'the deadline' => sub {
    $hub->faults([{ op => 'send', device_re => '^hangs', hang => 1 }]);

    # not later than 100 ms after it, if the machine is not busy elsewhere
    my @late;

    for (1 .. 5) {
        my $start = time;
        my $r = $t->request(POST => '/short/always?hangs', keepalive => 1,
                            headers => { 'Content-Type' => $form },
                            body => webhook("hangs-$_"));

        is($r->{status}, 200, 'the target answers');
        is($r->{headers}{connection}, 'close', 'the connection is not kept');

        my $got = $old->take;

        push @late, $got->{time} - $start - 0.7;
        cmp_ok($late[-1], '>', -0.01, 'the target is asked at the deadline');
        is($got->{headers}{'x-iothub-result'}, 'timeout', 'it knows why');

        last if $late[-1] < 0.1;
    }

    cmp_ok(min(@late), '<', 0.1, 'and not later');
};


subtest 'a hub that answers late' => sub {
    $hub->add(map { my $d = $_; map { "late-$_-$d" } qw(good bad cut) }
              0, 0.6, 1.2);
    $hub->add(map { "late-good-h2-$_" } 1 .. 10);

    $hub->faults([
        { op => 'send', device_re => '^late-good', delay => 1300 },
        { op => 'send', device_re => '^late-bad', delay => 1300,
          status => 500 },
        { op => 'send', device_re => '^late-404', delay => 1300,
          status => 404, code => 404001, error => 'DeviceNotFound' },
        { op => 'send', device_re => '^late-cut', delay => 1300,
          close => 'middle' },
    ]);

    # the target answers before the hub, at the same time, and after it
    for my $delay (0, 0.6, 1.2) {
        $old->answer(delay => $delay);

        my @answers = $t->parallel([map {
            [POST => '/short/always?late', body => webhook("late-$_-$delay"),
             headers => { 'Content-Type' => $form }]
        } qw(good bad 404 cut) ], 10);

        is($_->{status}, 200, "target after $delay s") for @answers;
        is($_->{body}, "target\n", 'its answer') for @answers;
    }

    $old->take(12);
    ok($t->wait_for_log(qr{^/short/always\?late 200 timeout late-$_},
                        file => 'access.log'), "the log has both: $_")
        for 'good-\S+ 200 204$', '404-\S+ 200 404$', 'bad-\S+ 200 500$';

    my @calls = $hub->journal(device => 'late-404-0');

    is(scalar(@calls), 1, 'after the deadline, there is no further call');

    if ($t->has_http2) {
        $old->answer(delay => 0.2);

        my $h2 = IoTHubTest::HTTP2->connect($t->port('h2'));

        $h2->request('/short/always', webhook("late-good-h2-$_"))
            for 1 .. 10;

        my @answers = $h2->answers(10);

        is(scalar(grep { $_->{status} == 200 } @answers), 10, 'over HTTP/2');

        # each is still there when its call ends
        ok($t->wait_for_log(qr{^/short/always 200 timeout late-good-h2\S+}
                            . qr{ 200 204$}, file => 'access.log',
                            count => 10),
           'the calls end');
        $old->take(10);
    }

    $old->answer;
};


# A late answer whose body comes after its head: nginx takes the timer of the
# sender's connection for that of the subrequest.

subtest 'a hub that answers late and slowly' => sub {
    my $slow = IoTHubTest::Recorder->start($t, 'slowhub');

    $slow->answer(delay => 1.3, pause => 0.4,
                  parts => ["HTTP/1.1 500 Error\r\nContent-Length: 9\r\n\r\n",
                            'not', ' today']);

    # the second one waits for a second
    my @answers = $t->parallel([map {
        [POST => '/short/delayed', body => webhook("slow-$_"),
         headers => { 'Content-Type' => $form }]
    } 1, 2 ], 2, timeout => 15);

    is($_->{status}, 200, 'a target with limit_req') for @answers;

    $old->take(2);
    $old->answer(body => 'x' x 10000);

    my $r = $t->post('/short/slow', webhook('slow-3'));

    is(length $r->{body}, 10000, 'a target with limit_rate');

    $old->take;

    # its head comes before the deadline, the rest while the target answers
    $slow->answer(delay => 0.2, pause => 0.8,
                  parts => ["HTTP/1.1 500 Error\r\nContent-Length: 9\r\n\r\n",
                            'not', ' today']);

    $r = $t->post('/short/slow', webhook('slow-4'));

    is($r->{status}, 200, 'a head before the deadline: the target answers');
    is(length($r->{body} // ''), 10000, 'and its answer is whole');
    ok($t->wait_for_log(qr{^/short/slow 200 timeout slow-4 200 500$},
                        file => 'access.log'), 'the log has both');

    $old->take;
    $old->answer;
    $slow->stop;
};


subtest 'senders that go' => sub {
    $hub->faults([{ op => 'send', device_re => '^gone', delay => 1600 }]);
    $old->answer(delay => 0.7);

    my $go = sub {
        my ($uri, $device, $after) = @_;

        my @s = map {
            my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                PeerPort => $t->port) or die "connect: $!\n";

            print $s compose(POST => $uri, body => webhook("$device-$_"),
                             headers => { 'Content-Type' => $form });
            $s;
        } 1 .. 5;

        sleep $after;
    };

    $go->('/short/always?gone', 'gone-early', 0.1);
    ok($t->wait_for_log(qr{^/short/always\?gone 499 timeout gone-early},
                        file => 'access.log', count => 5),
       'while the hub is asked');
    is(scalar $old->requests, 0, 'the target is not, then');

    $go->('/short/patient?gone', 'gone-patient', 0.1);
    my @got = $old->take(5);

    is(scalar(@got), 5, 'with proxy_ignore_client_abort, it is');

    $go->('/short/always?gone', 'gone-late', 1);
    ok($t->wait_for_log(qr{^/short/always\?gone 499 timeout gone-late},
                        file => 'access.log', count => 5),
       'while the target is asked');

    $hub->faults([]);
    $old->answer;
    sleep 0.1;
    $old->forget;

    is($t->post('/after', webhook('known'))->{status}, 200,
       'all goes on as before');
    $old->take;
};


# ---- targets

# the line of a request, without the version, of which nginx has its own mind

sub line { return $_[0]{line} =~ s{ HTTP/1\.[01]$}{}r }


subtest 'targets' => sub {
    my $r = $t->post('/return', 'event=e&coreid=known&kind=k1');

    is($r->{status}, 200, 'return');
    is($r->{body}, 'delivered known k1', 'and variables in it');

    for (['/uri?a=1' => '/new%20x?a=1'], ['/args?a=1' => '/new%20x?b=2'],
         ['/none?a=1' => '/new%20x'])
    {
        is($t->post($_->[0], webhook('known'))->{status}, 200, $_->[0]);
        is(line($old->take), "POST $_->[1]", 'its URI');
    }

    is($t->post('/denied', webhook('known'))->{status}, 403,
       'its access rules run');
    is(scalar $old->requests, 0, 'and hold it back');

    is($t->post('/fallback', webhook('known'))->{status}, 200,
       'its error_page is followed');
    is($old->take->{headers}{'x-iothub-result'}, 'delivered',
       'and knows the outcome');

    for my $status (201, 302, 404, 500, 503) {
        $old->answer(status => $status, headers => "\r\nX-Other: a",
                     body => "b$status");
        $r = $t->post('/after', webhook('known'));

        is($r->{status}, $status, "its $status");
        is($r->{headers}{'x-other'}, 'a', 'its headers');
        is($r->{body}, "b$status", 'its body');
        $old->take;
    }

    $old->answer(raw => '');
    is($t->post('/after', webhook('known'))->{status}, 502, 'its silence');
    $old->take;
    $old->answer;

    is($t->post('/off', webhook('known'))->{status}, 204, 'off');
    is($t->post('/found', webhook('known'))->{status}, 200,
       'behind an error_page, its status');
    is(line($old->take), 'GET /after/found',
       'and what nginx makes of the request');

    $t->post('/if', webhook('known'));
    is($old->take->{headers}{'x-iothub-result'}, undef, '"if" not');
    $t->post('/if?hub=1', webhook('known'));
    is($old->take->{headers}{'x-iothub-result'}, 'delivered', '"if"');

    $t->request(DELETE => '/early');
    $old->take;
    ok($t->wait_for_log(qr{^/early 200 method_not_allowed },
                        file => 'access.log'),
       'a variable that was read before, in the log');

    is($t->post('/mirrored', webhook('known'))->{status}, 200,
       'a copy that mirror has made');
    is($old->take->{body}, webhook('known'), 'goes on');

    $t->get('/limited');
    is($old->take->{headers}{'x-iothub-result'}, undef, 'limit_except not');
    $t->post('/limited', webhook('known'));
    is($old->take->{headers}{'x-iothub-result'}, 'delivered', 'limit_except');

    is($t->get('/after?coreid=known&event=ok')->{status}, 200, 'a GET webhook');
    is(line($old->take), 'GET /after?coreid=known&event=ok',
       'and its query');
};


subtest 'handshakes' => sub {
    my @options = (OPTIONS => '/events', headers => {
        'WebHook-Request-Origin' => 'events.example.com' });

    is($t->request(@options)->{headers}{'webhook-allowed-origin'},
       'events.example.com', 'after: the module answers');
    is(scalar $old->requests, 0, 'the target is not asked');

    $options[1] .= '/always';
    $t->request(@options);
    is(line($old->take), 'OPTIONS /events/always',
       'always: the target does');
};


subtest 'from one to the other, and in circles' => sub {
    $hub->forget;

    is($t->post('/first', webhook('twice'))->{status}, 204, 'two hubs');
    is(scalar($_->messages(device => 'twice')), 1, $_->name . ' has it')
        for $hub, $fabrikam;

    my $r = $t->post('/circle', webhook('round'));

    is($r->{status}, 503, 'to itself');
    is(decode_json($r->{body})->{code}, 'misconfigured', 'it is told');
    is(scalar($hub->messages(device => 'round')), 1, 'the hub has it once');
    ok($t->wait_for_log(qr{^/circle 503 delivered round }, file =>
                        'access.log'), 'the log has both');
    is($t->log_lines(qr/\[error\].*iothub_target "\/circle" leads back/), 1,
       'one line tells why');

    $r = $t->post('/around', webhook('round-2'));
    is($r->{status}, 503, 'by another');
    is(scalar($hub->messages(device => 'round-2')), 2,
       'each of the two was asked once');

    $r = $t->request(DELETE => '/around', body => 'abc');
    is($r->{status}, 503, 'without a delivery');
};


subtest 'headers' => sub {
    my $evil = "1\r\nX-Evil: yes\r\n\r\nGET /evil HTTP/1.1\r\n\r\n";
    my $escaped = $evil =~ s/([^\w])/sprintf '%%%02x', ord $1/ger;
    my $json = $evil =~ s/\r\n/\\r\\n/gr;

    $t->post('/headers', "event=ok&coreid=known&data=$escaped&kind=$escaped");

    my $got = $old->take;

    is($got->{headers}{'x-evil'}, undef, 'none is made by a webhook');
    is($got->{headers}{'x-data'}, $json, '$iothub_data is escaped');
    is($got->{headers}{'x-kind'}, $json, 'a field is escaped');
    is($got->{body}, $evil, 'a raw field is as it is');

    # a body of several lines
    $t->post('/headers', qq({"event":"ok","coreid":"known",\r\n"data":1}));
    $got = $old->take;

    is($got->{headers}{'x-body'},
       '{\"event\":\"ok\",\"coreid\":\"known\",\r\n\"data\":1}',
       '$iothub_body is escaped');
    like($got->{headers}{'x-message'}, qr/^\{"data":1,"device_id":"known"/,
         '$iothub_message needs not');
};


# ---- many

subtest 'a connection is kept' => sub {
    my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
                                  PeerPort => $t->port) or die "connect: $!\n";

    for my $uri (qw(/after /always /return /filtered /after)) {
        my $r = $t->request(POST => $uri, socket => $s, keepalive => 1,
                            body => webhook('known'),
                            headers => { 'Content-Type' => $form });

        is($r->{status}, 200, "$uri on the same connection");
    }

    $old->take(4);
};


subtest '50 at once' => sub {
    my @answers = $t->parallel([map {
        [POST => $_ % 2 ? '/after' : '/always', body => webhook("many-$_"),
         headers => { 'Content-Type' => $form }]
    } 1 .. 200 ], 50, keepalive => 1);

    is(scalar(grep { $_->{status} == 200 && $_->{body} eq "target\n" }
              @answers), 200, 'all are answered by the target');

    my @got = $old->take(200);
    my %seen = map { $_->{body} => 1 } @got;

    is(scalar(@got), 200, 'which got each');
    is(scalar(keys %seen), 200, 'once');
    is(scalar(grep { $_->{device} =~ /^many/ } $hub->messages), 200,
       'the hub has all');
};


subtest 'reload' => sub {
    $hub->faults([{ op => 'send', device_re => '^reload', hang => 1 }]);
    $old->answer(delay => 1);

    my @s = map {
        my $s = IO::Socket::INET->new(PeerAddr => '127.0.0.1',
            PeerPort => $t->port) or die "connect: $!\n";

        print $s compose(POST => '/short/always', body => webhook("reload-$_"),
                         headers => { 'Content-Type' => $form });
        $s;
    } 1 .. 5;

    sleep 0.2;
    ok($t->reload($conf), 'reloaded while the hub is asked');

    for my $s (@s) {
        local $/;
        like(scalar <$s>, qr{^HTTP/1.1 200 .*target\n\z}s, 'answered');
    }

    $hub->faults([]);
    $old->answer;
};


# ---- configuration

my @wrong = (
    ['iothub_target;' => qr/invalid number of arguments in "iothub_target"/],
    ['iothub_target @old after x;' =>
        qr/invalid number of arguments in "iothub_target"/],
    ['iothub_target old;' => 
        qr/invalid target "old", write "\@name" or "\/uri" of/],
    ['iothub_target @;' => qr/invalid target "\@", write "\@name"/],
    ['iothub_target "";' => qr/invalid target "", write "\@name"/],
    ['iothub_target http://127.0.0.1/;' =>
        qr/invalid target "http:\/\/127.0.0.1\/", .*has the proxy_pass/],
    ['iothub_target /$uri;' => qr/variable in target "\/\$uri", write/],
    ['iothub_target @$x;' => qr/variable in target "\@\$x", write/],
    ['iothub_target @old never;' =>
        qr/invalid parameter "never", write "after" or "always"/],
    ['iothub_target off always;' => qr/invalid target "off", write/],
    ['iothub_target @old; iothub_target @old;' =>
        qr/"iothub_target" directive is duplicate/],
    ['iothub_target off; iothub_target @old;' =>
        qr/"iothub_target" directive is duplicate/],
    ['iothub_target @gone;' => qr/unknown location "\@gone" in iothub_target, /
        . qr/write "location \@gone \{ ... \}" in the server of the /
        . qr/iothub_pass that is in \S+:5, in \S+:4/],
    ['if ($uri) { iothub_target @old; }' =>
        qr/"iothub_target" directive is not allowed here/],
    ['iothub_target @old after;' => undef],
    ['iothub_target /any/uri?a always;' => undef],
    ['iothub_target off;' => undef],
);

subtest 'wrong configurations' => sub {
    for (@wrong) {
        my ($text, $error) = @$_;
        my ($status, $output) = $t->nginx_t($hub->block . <<"CONF");

server { listen 127.0.0.1:1;
    location / { iothub_secret off;
        $text
        iothub_pass contoso;
    }
    location \@old { return 200; } location = /any/uri { return 200; }
}
CONF

        if (!$error) {
            is($status, 0, $text) or diag $output;
            next;
        }

        isnt($status, 0, $text);
        like($output, qr/\[emerg\].*$error/, 'its message');
        like($output, qr/test-\d+\.conf:4$/m, 'its line')
            if $text !~ /@\$|"";/;
    }

    # a location of another server is none
    my ($status, $output) = $t->nginx_t($hub->block . <<'CONF');

iothub_secret off;
iothub_target @old;
server { listen 127.0.0.1:1; location / { iothub_pass contoso; } }
server { listen 127.0.0.1:2; location @old { return 200; } }
CONF

    isnt($status, 0, 'in another server');
    like($output, qr/unknown location "\@old" .* \S+:4, in \S+:3$/m,
         'its message');
};


$t->done;
