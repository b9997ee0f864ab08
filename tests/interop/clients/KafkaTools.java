import java.io.BufferedReader;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import org.apache.kafka.common.utils.Exit;

/**
 * Runs Kafka's own command-line tools one after the other in one JVM. Each line of standard input is a command: main
 * class, base64 of standard input, arguments, separated by tabs. The answer is a line with exit code and base64 of
 * what the tool wrote to standard output.
 */
public class KafkaTools {
    private static class Exited extends RuntimeException {
        final int code;

        Exited(int code) {
            this.code = code;
        }
    }

    public static void main(String[] args) throws Exception {
        PrintStream answers = System.out;
        BufferedReader commands = new BufferedReader(new InputStreamReader(System.in, StandardCharsets.UTF_8));
        for (String line = commands.readLine(); line != null; line = commands.readLine()) {
            String[] parts = line.split("\t", -1);
            ByteArrayOutputStream output = new ByteArrayOutputStream();
            System.setIn(new ByteArrayInputStream(Base64.getDecoder().decode(parts[1])));
            System.setOut(new PrintStream(output, true));
            int code = run(parts[0], Arrays.copyOfRange(parts, 2, parts.length));
            System.out.flush();
            answers.println(code + "\t" + Base64.getEncoder().encodeToString(output.toByteArray()));
            answers.flush();
        }
        Runtime.getRuntime().halt(0);
    }

    /** The exit code. A tool may catch the exception that stands for its exit and exit again: the first code counts. */
    private static int run(String mainClass, String[] args) throws Exception {
        int[] first = {-1};
        Exit.setExitProcedure((code, message) -> {
            if (first[0] < 0)
                first[0] = code;
            throw new Exited(code);
        });
        // What a tool leaves to the end of its JVM (the producer's close) happens at the end of the tool.
        List<Runnable> hooks = new ArrayList<>();
        Exit.setShutdownHookAdder((name, hook) -> hooks.add(hook));
        try {
            Class.forName(mainClass).getMethod("main", String[].class).invoke(null, (Object) args);
        } catch (java.lang.reflect.InvocationTargetException ended) {
            if (!(ended.getCause() instanceof Exited))
                throw ended;
        }
        hooks.forEach(Runnable::run);
        return Math.max(first[0], 0);
    }
}
