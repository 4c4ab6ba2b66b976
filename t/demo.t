#!/usr/bin/perl

# demo/run: that it shows what it promises, tells by its exit status when it
# does not, and leaves nothing, however it ends.

use strict;
use warnings;

use Cwd qw(abs_path);
use File::Temp qw(tempdir);
use FindBin;
use POSIX qw(WNOHANG);
use Test::More;
use Time::HiRes qw(sleep time);

my $root = abs_path("$FindBin::Bin/..");
my $seconds = 60;

my $dir = tempdir('iothub-test-XXXXXX', TMPDIR => 1, CLEANUP => 1);

# root's nginx has workers of another user
chmod 0755, $dir;
mkdir "$dir/elsewhere" or die "$dir/elsewhere: $!\n";

my $demos = 0;


sub slurp {
    my ($path) = @_;

    open my $f, '<:raw', $path or return '';
    local $/;

    return scalar(<$f>) // '';
}


sub await {
    my ($condition) = @_;

    my $deadline = time + $seconds;

    while (time < $deadline) {
        my $said = $condition->();

        return $said if $said;

        sleep 0.02;
    }

    return;
}


# A demo in a session of its own, from another folder, without a terminal.

sub start {
    my ($tmp, %o) = @_;

    my $demo = { tmp => "$dir/$tmp", output => "$dir/" . ++$demos . '.out' };

    mkdir $demo->{tmp};
    $demo->{pid} = fork // die "fork: $!\n";

    if ($demo->{pid} == 0) {
        POSIX::setsid();
        chdir "$dir/elsewhere";

        $ENV{TMPDIR} = $demo->{tmp};
        $ENV{PATH} = "$o{stubs}:$ENV{PATH}" if defined $o{stubs};
        $SIG{INT} = 'DEFAULT';

        open STDIN, '<', '/dev/null';
        open STDOUT, '>', $demo->{output} or POSIX::_exit(126);
        open STDERR, '>&', \*STDOUT;

        exec("$root/demo/run", '--no-install', @{ $o{arguments} // [] })
            or POSIX::_exit(127);
    }

    return $demo;
}


sub output { slurp($_[0]{output}) }


# The exit status, or the signal with a minus; undef if it does not end.

sub ended {
    my ($demo) = @_;

    my $status;

    await(sub {
        return 0 if waitpid($demo->{pid}, WNOHANG) == 0;
        $status = $? & 127 ? -($? & 127) : $? >> 8;
        1;
    }) or kill KILL => $demo->{pid};

    return $status;
}


sub processes {
    my ($demo) = @_;

    return map { tr/\0/ /r } map { slurp("$_/cmdline") }
        grep { slurp("$_/stat") =~ /^\d+ \(.*\) [^Z] \d+ \d+ (\d+) /s
               && $1 == $demo->{pid} } glob '/proc/[0-9]*';
}


sub ends_well {
    my ($demo, $status, $name) = @_;

    is(ended($demo), $status, "$name: exit status")
        or diag(output($demo));
    is_deeply([processes($demo)], [], "$name: no process is left");
    is_deeply([glob "\Q$demo->{tmp}\E/{*,.??*}"], [],
              "$name: no file is left");
}


sub stub {
    my ($program, $script) = @_;

    my $folder = "$dir/stubs-$program";

    mkdir $folder;
    open my $f, '>', "$folder/$program" or die "$folder/$program: $!\n";
    print $f $script;
    close $f;
    chmod 0755, "$folder/$program";

    return $folder;
}


# ---- --once; its folder has a name that needs care

my $demo = start(q(it's once), arguments => ['--once']);

ends_well($demo, 0, 'once');

my $output = output($demo);
my %section = map { /^(\d+)\. / ? ($1 => $_) : () }
    split /^(?=\d+\. |Of )/m, $output;

is(scalar keys %section, 9, 'nine webhooks');
like($output, qr/^Of 9 webhooks, each had /m, 'the verdict');
unlike($output, qr/WRONG/, 'nothing is wrong');
unlike($output, qr/\e/, 'no colours without a terminal');

like($section{1}, qr/^  webhook   curl "\$URL"/m, 'how it was sent');
like($section{1}, qr/-d 'event=demo&data=mydata&/, 'the form');
like($section{1}, qr/^  answer    204 No Content$/m, 'the answer');

my $path = '/devices/3f002b000000000000000000';

like($section{1}, qr{^[ ]+hub[ ]+POST\ \Q$path\E/messages/events[ ]+->\ 404
    \ DeviceNotFound\n[ ]+PUT[ ]+\Q$path\E[ ]+->\ 200\n
    [ ]+POST\ \Q$path\E/messages/events[ ]+->\ 204\n}mx, 'the hub calls');

like($section{1}, qr/^ +contenttype: application\/json$/m, 'a property');
like($section{1}, qr/^ +event \(application\): demo$/m, 'its own property');
like($section{1}, qr/^[ ]+\{"data":"mydata","device_id":"3f002b0{18}",
    "event":"demo","published_at":"2017-02-01T21:08:05\.763Z"\}$/mx,
    'the body');

for my $case (
    [2, 204, qr/"\$URL\?event=demo/, 'query'],
    [3, 204, qr/Content-Type: application\/json/, 'JSON'],
    [4, 204, qr/^ +messageid: b5f6a7e0-.*"fw_version":"1"\}$/ms, 'event id'],
    [5, 204, qr/^ +\{"data":\{"tags":.*"broadband":1266\.0,/m, 'object'],
    [6, 401, qr/"code":"unauthorized"/, 'wrong secret'],
    [7, 400, qr/"code":"malformed"/, 'broken JSON'],
    [8, 422, qr/"code":"rejected"/, 'device pattern'],
    [9, 422, qr/"code":"blocked".*GET  \/devices\/\w+  -> 200/s, 'disabled'],
)
{
    my ($number, $status, $shown, $name) = @$case;

    like($section{$number}, qr/^  answer    $status /m, "$name: answer");
    like($section{$number}, $shown, "$name: what it shows");
    like($section{$number}, $status == 204
         ? qr/^  message   of device [0-9a-f]+$/m : qr/^  message   none$/m,
         "$name: message");
}


# ---- the gateway to play with; meanwhile, another demo

$demo = start('play');

ok(await(sub { output($demo) =~ /until Ctrl-C\.$/m }), 'it goes on');

my $second = start('second', arguments => ['--once']);

ends_well($second, 0, 'a second one beside it');

my ($lines) = output($demo)
    =~ /^( +URL=.*?^ +curl .*?coreid=0123456789abcdef01234567)$/ms;

my $told = length output($demo);
my $answer = qx{no_proxy=127.0.0.1 sh -c '$lines' 2>&1};

like($answer, qr{^HTTP/1\.1 204 }m, 'the line to try works');

ok(await(sub {
    substr(output($demo), $told) =~ m{
        ^[ ]+webhook[ ][^\n]*\ POST\ 204\ delivered\ [^\n]*\n
        [ ]+hub[ ][^\n]*\ ->\ 404\ DeviceNotFound\n
        [ ]+PUT[ ]+/devices/0123456789abcdef01234567[ ]+->\ 200\n
        [ ]+POST\ [^\n]*\ ->\ 204\n
        [ ]+message[ ]+of\ device\ 0123456789abcdef01234567$
        .*^[ ]+\{"data":"21\.5",
    }msx;
}), 'and what arrives is shown') or diag(output($demo));

my ($conf) = output($demo) =~ m{^  configuration  (/\S+/nginx\.conf)$}m;

like(slurp($conf), qr/^    iothub contoso \{$/m, 'where nginx.conf is');
unlike(slurp($conf), qr/\@/, 'it is filled in');

my ($folder) = $conf =~ m{^(.*)/};

is((stat "$folder/$_")[2] & 07777, 0600, "$_ is nobody else's")
    for qw(contoso.key particle.secret);

kill INT => $demo->{pid};
ends_well($demo, 0, 'Ctrl-C');


# ---- other ends

$demo = start('term');
await(sub { output($demo) =~ /^1\. /m });
kill TERM => $demo->{pid};
ends_well($demo, 1, 'TERM in the middle');

$demo = start('play-term');
await(sub { output($demo) =~ /until Ctrl-C\.$/m });
kill $_ => $demo->{pid} for qw(TERM INT TERM);
ends_well($demo, 0, 'several signals');

$demo = start('nginx-ends');
await(sub { output($demo) =~ /until Ctrl-C\.$/m });
output($demo) =~ /kill -HUP (\d+)$/m and kill QUIT => $1;
ends_well($demo, 1, 'nginx is stopped by somebody');
like(output($demo), qr/^demo: nginx has ended$/m, 'which it says');

my $curl = (grep { -x } map { "$_/curl" } split /:/, $ENV{PATH})[0];

my $other_data = "#!/bin/bash\nexec $curl \"\${\@//mydata/other}\"\n";

$demo = start('wrong', arguments => ['--once'],
              stubs => stub(curl => $other_data));
ends_well($demo, 1, 'other messages than there should be');
like(output($demo), qr/^Of 9 webhooks, only 6 had /m, 'as the verdict says');
is(scalar(() = output($demo) =~ /^  WRONG     the body is /mg), 3,
   'and each of them');

$demo = start('no-nginx', arguments => ['--once'],
    stubs => stub(nginx => "#!/bin/sh\necho no, thanks\nexit 1\n"));
ends_well($demo, 1, 'nginx does not start');
like(output($demo), qr/^demo: nginx did not start:\nno, thanks$/m,
     'it says why');


# ---- options

$demo = start('help', arguments => ['--help']);
ends_well($demo, 0, '--help');
like(output($demo), qr/^  --once +end after the webhooks/m, 'it helps');

$demo = start('unknown', arguments => ['--twice']);
ends_well($demo, 2, 'an unknown option');

done_testing();
