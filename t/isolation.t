#!/usr/bin/perl

# Nothing that http{} or the user's server says changes an exchange or its
# answer: the same webhooks are sent through a plain and through a hostile
# configuration, and hub and sender must see the same bytes.

use strict;
use warnings;

use FindBin;
use lib "$FindBin::Bin/lib";
use Test::More;
use IoTHubTest;

my $t = IoTHubTest->new;
my $hub = $t->hub;

$t->write_file('passwords', "nobody:{PLAIN}none\n");
$t->write_file('secret', "open sesame\n");


# Allowed in http{}, each of them harmful to an exchange that it reaches.

my $http = <<'CONF';

    proxy_set_header Authorization stolen;
    proxy_set_header Host evil.example.com;
    proxy_set_header X-Evil yes;
    proxy_pass_request_headers off;
    proxy_pass_request_body off;
    proxy_method DELETE;
    proxy_set_body evil;
    proxy_http_version 1.0;
    proxy_intercept_errors on;
    proxy_next_upstream off;
    proxy_next_upstream_tries 1;
    proxy_next_upstream_timeout 1ms;
    proxy_connect_timeout 1ms;
    proxy_send_timeout 1ms;
    proxy_read_timeout 1ms;
    proxy_bind 192.0.2.1;
    proxy_buffering on;
    proxy_buffer_size 1k;
    proxy_buffers 2 1k;
    proxy_busy_buffers_size 1k;
    proxy_max_temp_file_size 0;
    proxy_request_buffering off;
    proxy_ignore_client_abort off;
    proxy_limit_rate 1;
    proxy_hide_header iothub-errorcode;
    proxy_ignore_headers X-Accel-Redirect;
    proxy_redirect http:// https://;
    proxy_cache_path %%TESTDIR%%/cache keys_zone=cache:1m;
    proxy_cache cache;
    proxy_cache_key one;
    proxy_cache_methods POST;
    proxy_cache_valid any 1h;
    proxy_ssl_verify off;
    proxy_ssl_name evil.example.com;
    proxy_ssl_server_name off;
    proxy_ssl_protocols TLSv1;
    proxy_ssl_ciphers NULL;
    proxy_ssl_session_reuse off;
    proxy_ssl_trusted_certificate %%TESTDIR%%/nowhere.crt;

    error_page 400 401 403 404 405 409 413 415 422 429 500 502 503 504
               =200 /fine;
    recursive_error_pages on;
    post_action /fine;
    log_subrequest on;
    subrequest_output_buffer_size 1;
    client_max_body_size 1;
    client_body_in_file_only clean;
    client_body_buffer_size 1k;
    keepalive_timeout 0;
    keepalive_requests 1;
    underscores_in_headers on;
    ignore_invalid_headers off;
    limit_rate 1;
    limit_rate_after 1;
    output_buffers 1 1;
    postpone_output 100000;
    chunked_transfer_encoding off;
    default_type text/evil;

    deny all;
    satisfy any;
    auth_basic closed;
    auth_basic_user_file %%TESTDIR%%/passwords;
    auth_request /denied;
    mirror /fine;
    limit_req_zone $server_name zone=slow:1m rate=1r/m;
    limit_req zone=slow;
    limit_conn_zone $server_name zone=few:1m;
    limit_conn few 1;

    add_header X-Evil yes always;
    add_trailer X-Evil yes;
    expires 1h;
    sub_filter_types *;
    sub_filter_once off;
    sub_filter '"' evil;
    addition_types *;
    add_before_body /fine;
    add_after_body /fine;
    gzip on;
    gzip_types *;
    gzip_min_length 0;
    gzip_proxied any;
    gunzip on;
    ssi on;
    ssi_types *;
    charset koi8-r;
    override_charset on;

CONF


# The user's server, in which a subrequest of another kind would run.

my $server = <<'CONF';

        if ($uri = /) { return 418; }
        rewrite ^/devices /fine last;
        error_page 404 500 502 503 504 =200 /fine;
        proxy_set_header X-Evil server;
        proxy_read_timeout 1ms;
        deny all;
        location = / { return 200 evil; }
        location /devices { return 200 evil; }

CONF


# What the sender sees is his: the location takes back what would change the
# answer to him, with and without the rest.

my $location = <<'CONF';

            iothub_pass contoso;
            iothub_secret header=X-Secret file=%%TESTDIR%%/secret;
            iothub_match temp;

            allow all;
            satisfy all;
            auth_basic off;
            auth_request off;
            limit_req zone=wide burst=1000 nodelay;
            limit_conn many 1000;
            client_max_body_size 1m;
            limit_rate 0;
            output_buffers 2 32k;
            add_header X-None "";
            add_trailer X-None "";
            expires off;
            sub_filter_types text/none;
            add_before_body "";
            add_after_body "";
            gzip off;
            ssi off;
            charset off;

CONF


sub conf {
    my ($hostile) = @_;

    return join '', ($hostile ? $http : ''), $hub->block, <<'CONF',

    log_format short '$uri $status';
    access_log %%TESTDIR%%/access.log short;
    limit_req_zone $server_name zone=wide:1m rate=1000r/s;
    limit_conn_zone $server_name zone=many:1m;

    server {
        listen 127.0.0.1:%%PORT_8080%% default_server;
        return 403;
    }

    server {
        listen 127.0.0.1:%%PORT_8080%%;
        server_name hooks.example.com;

CONF
        ($hostile ? $server : ''), <<'CONF', $location, "}\n}\n";

        location = /fine { allow all; auth_basic off; return 200 fine; }
        location = /denied { return 403; }

        location /particle {
CONF
}


sub body {
    my ($device, $event) = @_;

    return qq({"event":"$event","coreid":"$device","data":"21.5",)
        . '"published_at":"2026-11-23T05:06:07.089Z"}';
}


sub webhook {
    my ($name, $method, $body, %o) = @_;

    my $query = $o{query} // '';
    my @headers = (
        'Content-Type' => 'application/json',
        'X-Secret' => 'open sesame',
        'User-Agent' => 'ParticleBot/1.1', Cookie => 'session=sender',
        Authorization => 'Bearer sender', 'X-Forwarded-For' => '192.0.2.7',
        'X_Under_Score' => '1', Accept => '*/*', Expect => '',
        'iothub-messageid' => 'sender', 'iothub-app-sender' => 'sender',
        'If-Match' => '*', Range => 'bytes=0-0', Referer => 'sender',
    );

    my %replace = %{ $o{headers} // {} };
    my @pairs;

    while (my ($key, $value) = splice @headers, 0, 2) {
        push @pairs, $key, $replace{$key} // $value;
    }

    return [$name, $method, "/particle$query",
            host => 'hooks.example.com', headers => \@pairs,
            defined $body ? (body => $body) : ()];
}


my $query = '?event=temp&coreid=known&data=1'
    . '&published_at=2026-11-23T05:06:07.089Z';

my @webhooks = (
    webhook('of a new device', POST => body('new', 'temp/one')),
    webhook('of the same device', POST => body('new', 'temp/two')),
    webhook('of a known device', PUT => body('known', 'temp')),
    webhook('in chunks', POST => [unpack '(a9)*', body('known', 'temp')]),
    webhook('as a form', POST => substr($query, 1),
            headers => { 'Content-Type' =>
                         'application/x-www-form-urlencoded' }),
    webhook('as a query', GET => undef, query => $query),
    webhook('of 100 KB', POST => body('known', 'temp' . 'x' x 100_000)),
    webhook('of a disabled device', POST => body('disabled', 'temp')),
    webhook('of a disabled device again', POST => body('disabled', 'temp')),
    webhook('that is filtered', POST => body('known', 'noise')),
    webhook('that is malformed', POST => '{"event":'),
    webhook('with a wrong secret', POST => body('known', 'temp'),
            headers => { 'X-Secret' => 'close sesame' }),
    webhook('by a wrong method', DELETE => undef),
    webhook('in another type', POST => body('known', 'temp'),
            headers => { 'Content-Type' => 'text/xml' }),
    webhook('that the hub refuses', POST => body('refused', 'temp')),
    webhook('after a 500', POST => body('failing', 'temp')),
    webhook('after an answer that breaks off', POST => body('cut', 'temp')),
    webhook('with a slow answer', POST => body('slow', 'temp')),
    webhook('with a large answer', POST => body('large', 'temp')),
    webhook('with a redirect of the proxy', POST => body('accel', 'temp')),

    # the last: it holds back those after it
    webhook('that the hub throttles', POST => body('throttled', 'temp')),
);

my @known = qw(known disabled refused throttled failing cut slow large accel);


sub run {
    my ($hostile) = @_;

    $hub->forget;
    $hub->remove($_->{deviceId}) for $hub->devices;
    $hub->add(@known);
    $hub->disable('disabled');
    $hub->faults([
        { device => 'refused', status => 400, times => 1 },
        { device => 'throttled', status => 429, retry_after => 30 },
        { device => 'failing', status => 500, times => 2 },
        { device => 'cut', close => 'middle', accept => JSON::PP::true(),
          times => 1 },
        { device => 'slow', delay => 50 },
        { device => 'large', status => 400, oversize => 65536 },
        { device => 'accel', status => 200,
          headers => { 'X-Accel-Redirect' => '/fine',
                       'X-Accel-Limit-Rate' => 1 } },
    ]);

    unlink $t->dir . '/access.log';
    $t->nginx(conf($hostile), workers => 1);

    my %answers;

    for my $webhook (@webhooks) {
        my ($name, @request) = @$webhook;
        my $answer = $t->request(@request);

        delete $answer->{headers}{date};
        $answers{$name} =
            { map { $_ => $answer->{$_} } qw(status headers body complete) };
    }

    $t->stop;

    my @journal = $hub->journal;
    my %connections;

    for my $entry (@journal) {
        $connections{$entry->{conn}} //= 1 + keys %connections;

        delete $entry->{token}{se} if $entry->{token};
        $entry->{conn} = $connections{$entry->{conn}};
        $entry = { map { $_ => $entry->{$_} } qw(op device method uri sni tls
            token header_list body status conn reqn) };
    }

    return (\%answers, \@journal);
}


my ($plain_answers, $plain) = run(0);
my ($hostile_answers, $hostile) = run(1);

# the plain run did what it was to do

my %status = map { $_ => $plain_answers->{$_}{status} }
    keys %$plain_answers;

is($status{'of a new device'}, 204, 'the new device is delivered');
is($status{'of a disabled device'}, 422, 'the disabled one is blocked');
is($status{'that the hub throttles'}, 503, 'the throttled one is told');
is($status{'after a 500'}, 204, 'a failure is repeated');
is($status{'after an answer that breaks off'}, 204,
   'an answer that breaks off is repeated');
is($status{'with a redirect of the proxy'}, 204, 'nothing is redirected');

my @ops = map { $_->{op} } grep { $_->{device} eq 'new' } @$plain;

is_deeply(\@ops, [qw(send create send send)], 'exchanges of a new device');

# and the hostile run the same

is(scalar @$hostile, scalar @$plain, 'as many exchanges');

for my $i (0 .. $#$plain) {
    my $entry = $plain->[$i];

    is_deeply($hostile->[$i], $entry,
              "exchange $i is the same: $entry->{op} $entry->{device}");
}

for my $webhook (@webhooks) {
    my ($name) = @$webhook;

    is_deeply($hostile_answers->{$name}, $plain_answers->{$name},
              "the answer to a webhook $name is the same");
}

# post_action is the user's: it runs after the webhook, and never for an
# exchange; log_subrequest logs none

my @logged = split /^/m, $t->access_log;

is(scalar(grep { m{^/ } || m{^/devices} } @logged), 0, 'no exchange is logged');

# nothing of the sender's own head reaches the hub

my %sent = map { lc($_->[0]) => 1 } map { @{ $_->{header_list} } } @$plain;

is_deeply([sort keys %sent],
          [sort qw(authorization host content-length content-type
                   iothub-contenttype iothub-contentencoding iothub-messageid
                   iothub-creationtimeutc)],
          'the hub gets these headers and no others');

my @types = map { $_->[1] } grep { lc $_->[0] eq 'content-type' }
    map { @{ $_->{header_list} } } grep { $_->{op} eq 'send' } @$plain;

is_deeply(\@types, [], 'no Content-Type with a message');

unlike(join("\n", map { $_->{uri}, map { @$_ } @{ $_->{header_list} } }
            @$plain), qr/sender|ParticleBot|192\.0\.2\.7|sesame/,
       'no value of the sender');

$t->done;
